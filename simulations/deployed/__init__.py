"""Pieces of the benchmarks that run over Flower's deployment engine."""
