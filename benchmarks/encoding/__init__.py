"""Encoding images to the latent data set, beside the forward passes alone."""
