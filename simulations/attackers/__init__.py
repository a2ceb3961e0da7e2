"""Attackers, faults and power cuts that tests and benchmarks let loose on a consortium."""
