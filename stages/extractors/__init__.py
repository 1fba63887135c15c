"""Feature networks: what images are compared in."""
