"""The study that all hospitals approve, and a hospital's own policy."""
