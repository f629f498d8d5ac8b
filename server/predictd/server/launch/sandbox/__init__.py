"""What a worker is kept from, since a model file is input that nobody vouches for."""
