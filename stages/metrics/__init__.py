"""Judgement: one figure or one family of figures per file."""
