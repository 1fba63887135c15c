"""Bias and variance of the gradients through discrete latents, against the exact gradient."""
