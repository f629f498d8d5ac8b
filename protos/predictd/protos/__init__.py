"""Protocol definitions, one package for each protocol."""
