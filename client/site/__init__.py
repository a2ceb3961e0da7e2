"""A hospital's own folder: identity, consents, connection, roster and stored replies."""
