"""Open Inference Protocol with Triton's extensions. Server-only: Triton clients carry the same symbols."""
