"""Patients as data: manifest, outcomes, funnel, feature files and batches."""
