"""Lines that differ in some parameters: planned as a whole, what they share computed once."""
