"""Mergeable tables of counts, their grid, noise and bootstrap."""
