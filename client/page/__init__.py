"""A hospital's live page about itself, without anything about patients."""
