"""Sampling of codes token by token, beside peers and the ceiling, and what a token costs."""
