"""The Python half of the native front end: what the loop in C leaves to it, and what it has to be told."""
