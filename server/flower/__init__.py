"""Flower on the coordinator's side: server app, grid, SuperLink and node registration."""
