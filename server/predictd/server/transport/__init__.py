"""How requests travel between front ends and workers: arenas with one writer, 64-byte records through pipes.

The layout is an ABI, written down byte by byte in docs/transport.md.
"""
