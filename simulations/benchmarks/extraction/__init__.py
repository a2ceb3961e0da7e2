"""Benchmarks of feature extraction."""
