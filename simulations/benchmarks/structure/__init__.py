"""Benchmarks of the source tree itself: its folders, imports, sizes and dependencies."""
