"""From a prior and an autoencoder to images, whatever the batch size."""
