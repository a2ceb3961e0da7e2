"""Processes of this machine: supervision, background start, ports, health, event logs."""
