"""How distances depend on the number of images, on real images."""
