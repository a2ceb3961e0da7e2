"""Durable files: atomic writes, locks, fsync and full disks."""
