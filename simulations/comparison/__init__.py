"""Statistics that compare arms over folds, seeds and hospitals."""
