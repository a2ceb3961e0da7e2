"""Features of clinical tables and sentences."""
