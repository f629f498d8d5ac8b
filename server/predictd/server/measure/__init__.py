"""Measuring: an engine alone, in a process placed as a worker is, and what repeated measurements allow to say."""
