"""Messages that server and hospitals exchange."""
