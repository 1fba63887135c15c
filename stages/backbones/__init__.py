"""Encoder and decoder pairs: one per file."""
