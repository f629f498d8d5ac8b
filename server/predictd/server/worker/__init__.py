"""The worker process: takes tickets, forms batches, runs the engine, answers through its own arena."""
