"""Benchmarks of federated evaluation: error and scale."""
