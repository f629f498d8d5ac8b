"""What supervisor and children say to each other, and the socket that carries it."""
