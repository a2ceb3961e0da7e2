"""Losses that are sums over patients, so that one patient's gradient can be clipped."""
