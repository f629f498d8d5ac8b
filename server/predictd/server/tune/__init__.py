"""Finding the settings that suit a model on this machine, by measuring."""
