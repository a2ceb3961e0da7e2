"""Signatures, rosters, certificates, provenance and signed audit logs."""
