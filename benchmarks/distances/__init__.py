"""Distances between sets of features: agreement with torchmetrics and scipy, and time."""
