"""Command-line frame of all sides, and the commands that need neither hospital nor server."""
