"""Training mechanisms without transport, for experiments over many folds and seeds."""
