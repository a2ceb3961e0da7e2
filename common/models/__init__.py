"""Fused models: `build_model(study)` builds the one that a study names."""
