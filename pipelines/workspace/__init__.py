"""What runs in a workspace: its stages as DVC has them, one writer at a time, and copies of it."""
