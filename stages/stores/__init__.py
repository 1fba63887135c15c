"""What lies on disk between stages: prepared images and the latent data set, read memory-mapped."""
