"""Contract that every model fulfils, its parameters and weights files."""
