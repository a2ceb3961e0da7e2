"""Study: what all hospitals approve, and a hospital's own policy."""
