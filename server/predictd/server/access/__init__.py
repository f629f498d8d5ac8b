"""Who may call what: roles, tokens, certificates and the rule of every method. No gRPC, no processes."""
