"""Members of the families on the same data, for the same wall time."""
