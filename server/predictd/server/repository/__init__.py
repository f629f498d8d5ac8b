"""The models on disk: which there are, which versions of them are served, and which workers host them."""
