"""Benchmarks of private training: utility, cost, ledger and secure sum."""
