"""Sections of params.yaml for priors small enough to test."""

__all__ = ["BLOCKS", "SIZES", "TRANSFORMER"]

SIZES = {"width": 16, "num_heads": 2, "label_dropout": 0.1}
"""What every prior made of transformers is asked."""
BLOCKS = {
    **SIZES,
    "token_dropout": 0.0,
    "residual_dropout": 0.0,
    "feed_forward_dropout": 0.0,
    "attention_dropout": 0.0,
    "query_key_norm": True,
}
"""What causal ones are asked."""
TRANSFORMER = {
    "kind": "transformer",
    "layers": 2,
    "positions": "learned",
    "order": "raster",
    "random_until": 0,
    "raster_from": 0,
    **BLOCKS,
}
