"""Benchmarks of a deployed consortium: rounds and faults."""
