"""Form of a benchmark, and what several benchmarks share."""
