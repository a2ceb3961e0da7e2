"""Explanations of predictions for single patients; everything stays at the hospital."""
