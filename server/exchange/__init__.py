"""Exchanges with hospitals: enrolment, key agreement, secure sums, validated replies."""
