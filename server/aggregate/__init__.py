"""Aggregation of validated replies into the next global model, block by block."""
