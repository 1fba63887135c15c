"""Second stages: p(latents given class); one per file."""
