"""Predictions of a trained model for a hospital's own patients."""
