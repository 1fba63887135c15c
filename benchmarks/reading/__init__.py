"""Reading a latent data set at random, beside NumPy's memory maps."""
