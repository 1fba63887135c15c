"""What stands between encoder and decoder, and what the prior will model: one per file."""
