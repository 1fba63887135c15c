"""Training steps of a prior over codes, beside peers and the ceiling."""
