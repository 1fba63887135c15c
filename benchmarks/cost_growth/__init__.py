"""How time and memory of every stage's core grow, beside how they are expected to."""
