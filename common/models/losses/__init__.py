"""Training losses for response and survival."""
