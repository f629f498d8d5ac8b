"""The Open Inference Protocol with Triton's extensions. Server-only: Triton's clients carry the same symbols."""
