"""Features of RNA tables."""
