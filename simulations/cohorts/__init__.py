"""Public multi-centre cohorts, read as consortia of hospitals."""
