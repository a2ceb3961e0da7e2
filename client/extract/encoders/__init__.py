"""Pretrained encoders and their weights."""
