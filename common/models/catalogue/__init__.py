"""Registry of models, and their validation for private training."""
