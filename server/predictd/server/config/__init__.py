"""Settings of the daemon, of a model, and what they mean."""
