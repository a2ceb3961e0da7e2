"""Commands `tumorboard simulate` and `tumorboard demo`."""
