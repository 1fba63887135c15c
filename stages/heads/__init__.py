"""What a prior says about one token given those before it: a distribution per file."""
