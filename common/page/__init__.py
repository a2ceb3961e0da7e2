"""The read-only live page that a coordinator, or a hospital, serves about itself."""
