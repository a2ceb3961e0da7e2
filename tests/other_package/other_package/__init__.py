"""A model, an extractor and an aggregation rule for Tumorboard, in a distribution of their own."""
