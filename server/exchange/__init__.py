"""Exchanges with hospitals: enrolment, key agreement, secure sums, checked replies."""
