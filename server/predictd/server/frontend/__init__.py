"""The front end process: gRPC in, tickets out, answers back."""
