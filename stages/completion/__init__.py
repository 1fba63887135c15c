"""The rest of an image of which a part is known."""
