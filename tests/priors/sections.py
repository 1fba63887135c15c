"""Sections of params.yaml for priors small enough to test."""

__all__ = ["BLOCKS", "TRANSFORMER"]

BLOCKS = {
    "width": 16,
    "num_heads": 2,
    "label_dropout": 0.1,
    "token_dropout": 0.0,
    "residual_dropout": 0.0,
    "feed_forward_dropout": 0.0,
    "attention_dropout": 0.0,
    "query_key_norm": True,
}
"""What every prior made of transformers is asked."""
TRANSFORMER = {
    "kind": "transformer",
    "layers": 2,
    "positions": "learned",
    "order": "raster",
    "random_until": 0,
    "raster_from": 0,
    **BLOCKS,
}
