"""The version of everything on docs/transport.md. The supervisor knows it without NumPy."""

ABI_VERSION = 1
