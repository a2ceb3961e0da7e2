"""Whole federations on this machine: in process, over Ray, with unreliable hospitals."""
