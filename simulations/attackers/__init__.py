"""Attackers, faults and power cuts that tests and benchmarks apply to a consortium."""
