"""Arms of comparisons: baselines, modalities and privacy budgets."""
