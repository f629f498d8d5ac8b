"""The Open Inference Protocol with Triton's extensions. Server-only: its symbols clash with those in Triton clients."""
