"""Contracts and methods shared by hospitals and the coordinator."""
