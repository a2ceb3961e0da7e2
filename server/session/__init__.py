"""State of one run: session, checkpoints, journal and the link to the hospitals."""
