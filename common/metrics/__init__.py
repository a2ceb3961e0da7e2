"""Evaluation across sites from mergeable tables: no patient row leaves a hospital."""
