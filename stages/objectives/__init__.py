"""What the KL of the latents costs in training; one per file."""
