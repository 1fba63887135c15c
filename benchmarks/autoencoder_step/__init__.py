"""Training steps of autoencoders at equal arithmetic, beside peers and the ceiling."""
