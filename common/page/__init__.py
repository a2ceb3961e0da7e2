"""Read-only live page of a coordinator or a hospital."""
