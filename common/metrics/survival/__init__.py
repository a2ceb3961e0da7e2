"""Survival metrics computed from summed tables."""
