"""Response metrics computed from summed tables."""
