"""WHAT the line does: the programs DVC runs, and the library beneath them."""
