"""Commands of `tumorboard server`, run control and metric export."""
