"""Images as bits: an entropy coder over the trained line, and the files it writes."""
