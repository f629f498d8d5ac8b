"""What runs a model. Knows nothing of gRPC, queues or processes."""
