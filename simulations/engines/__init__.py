"""Whole federations on this machine: in process, over Ray, with unreliable hospitals."""

import os

# Flower reads them once, while it is imported; every module here that imports it comes after.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
