"""One training pass through a vector quantizer, beside peers and the ceiling."""
