"""Benchmarks on real and synthetic multi-hospital cohorts."""
