"""Disentanglement: how latents line up with known factors of the images; one score per file."""
