"""Simulated consortia, public cohorts and benchmarks."""
