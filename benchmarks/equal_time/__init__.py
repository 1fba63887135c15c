"""Whose pictures are best after the same time: this line against others' pairs of stages."""
