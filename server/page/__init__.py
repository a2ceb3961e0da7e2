"""The coordinator's live page about one run."""
