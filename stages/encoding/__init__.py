"""The data set as latents: which views, which precision, and how it is encoded."""
