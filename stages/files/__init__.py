"""Floor 1: image files as users and publishers leave them: folders, zips, published archives."""
