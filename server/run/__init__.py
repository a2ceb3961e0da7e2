"""Rounds of a run, from the first model to the final evaluation."""
