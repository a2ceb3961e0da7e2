"""A hospital's live page about itself; nothing about patients."""
