"""Features of whole-slide images."""
