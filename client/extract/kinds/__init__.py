"""Contract of an extractor, and the registry of extractor kinds."""
