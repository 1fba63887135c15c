"""A line as the champion, and a recorded line again."""
