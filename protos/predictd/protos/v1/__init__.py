"""predictd.v1, our own API."""
