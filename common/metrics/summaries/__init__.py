"""Tabulation of a hospital's patients, and all metrics of all hospitals from the tables."""
