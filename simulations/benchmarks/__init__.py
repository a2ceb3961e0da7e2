"""Benchmarks: every published figure as a check that anybody can run again."""
