"""The process that owns a hospital's data and answers the server through a relay."""
