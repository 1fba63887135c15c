"""p(x given z): what the decoder's output means; one per file."""
