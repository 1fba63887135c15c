"""Floor 1: building blocks without knowledge of the line."""
