"""Training data of a hospital: datasets, bags of tokens, splits and their checks."""
