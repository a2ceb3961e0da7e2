"""Scenarios: cohort, folds and arms, their cells, runs and reports."""
