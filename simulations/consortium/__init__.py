"""Whole consortium as processes of this machine, and the check of its records."""
