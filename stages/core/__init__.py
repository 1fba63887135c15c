"""Floor 0: what every stage stands on and what knows nothing of images, models or metrics."""
