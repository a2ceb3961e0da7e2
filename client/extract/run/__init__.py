"""Resumable extraction of a cohort over worker processes."""
