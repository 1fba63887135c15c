"""How far real images are from real images, in the features of every network."""
