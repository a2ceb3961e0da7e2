"""Fused models: `build_model(study)` makes the one a study names."""
