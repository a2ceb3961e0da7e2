"""Commands of `tumorboard site`, and the state of a running hospital node."""
