"""The load generator: `predictd bench` over the network."""
