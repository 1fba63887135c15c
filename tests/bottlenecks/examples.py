"""Small options of every bottleneck, and how to build one."""

from stages.bottlenecks.base import Bottleneck, BottleneckOptions
from stages.core.sections import load_member, validate
from stages.core.shapes import FeatureShape

FEATURES = FeatureShape(6, 2, 3)
_CODEBOOK = {
    "num_codes": 7,
    "dim": 5,
    "commitment_weight": 1.0,
    "decay": 0.9,
    "revive_below": 0.1,
    "kmeans_iterations": 3,
    "kmeans_vectors": 50,
}
EXAMPLES = [
    {"kind": "identity", "layout": "spatial", "channels": 4},
    {"kind": "identity", "layout": "vector", "channels": 4},
    {"kind": "gaussian", "layout": "spatial", "channels": 4, "kl_weight": 0.5},
    {"kind": "gaussian", "layout": "vector", "channels": 4, "kl_weight": 1.0},
    {"kind": "vq", **_CODEBOOK},
    {"kind": "ema_vq", **_CODEBOOK},
]


def build(values: dict, **changes) -> Bottleneck:
    """The bottleneck these values describe, for features of shape FEATURES."""
    values = values | changes
    options = validate(BottleneckOptions.of_kind(values["kind"]), values, source="test")
    return load_member(Bottleneck, values["kind"])(options, FEATURES)


def example(kind: str, **changes) -> Bottleneck:
    """The first example of a kind, with some values changed."""
    return build(next(values for values in EXAMPLES if values["kind"] == kind), **changes)
