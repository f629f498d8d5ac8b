"""The predictd daemon: supervisor, front ends and workers."""
