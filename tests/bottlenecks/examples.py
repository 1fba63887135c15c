"""Small options of every bottleneck, and how to build one."""

from stages.bottlenecks.base import Bottleneck, BottleneckOptions
from stages.core.sections import load_member, validate
from stages.core.shapes import FeatureShape

FEATURES = FeatureShape(6, 2, 3)
_CODEBOOK = {
    "num_codes": 7,
    "dim": 5,
    "commitment_weight": 1.0,
    "gradient": "straight_through",
    "decay": 0.9,
    "revive_below": 0.1,
    "kmeans_iterations": 3,
    "kmeans_vectors": 50,
}
_GUMBEL = {
    "kind": "gumbel",
    "num_codes": 7,
    "dim": 5,
    "tau_start": 1.0,
    "tau_end": 0.5,
    "tau_steps": 10,
}
_LOOKUP_FREE = {
    "kind": "lookup_free",
    "num_bits": 5,
    "commitment_weight": 0.5,
    "sample_entropy_weight": 0.2,
    "batch_entropy_weight": 0.3,
    "temperature": 1.5,
}
EXAMPLES = [
    {"kind": "identity", "layout": "spatial", "channels": 4},
    {"kind": "identity", "layout": "vector", "channels": 4},
    {"kind": "gaussian", "layout": "spatial", "channels": 4},
    {"kind": "gaussian", "layout": "vector", "channels": 4},
    {"kind": "laplace", "layout": "spatial", "channels": 4, "kl_draws": 0},
    {
        "kind": "gamma",
        "layout": "spatial",
        "channels": 4,
        "prior_concentration": 2.0,
        "prior_rate": 1.0,
        "kl_draws": 0,
    },
    {
        "kind": "beta",
        "layout": "spatial",
        "channels": 4,
        "prior_concentrations": [1.0, 1.0],
        "kl_draws": 0,
    },
    {"kind": "vq", **_CODEBOOK},
    {"kind": "ema_vq", **_CODEBOOK},
    {"kind": "ema_vq", **_CODEBOOK, "gradient": "rotation"},
    {"kind": "cosine_vq", **_CODEBOOK},
    {"kind": "residual_vq", **_CODEBOOK, "depth": 4, "shared": False},
    {"kind": "residual_vq", **_CODEBOOK, "depth": 3, "shared": True},
    {"kind": "fsq", "levels": [5, 4, 2]},
    _LOOKUP_FREE,
    {**_GUMBEL, "estimator": "straight_through"},
    {**_GUMBEL, "estimator": "soft"},
    {
        "kind": "score_function",
        "num_codes": 7,
        "dim": 5,
        "baseline_width": 4,
        "baseline_decay": 0.9,
    },
]


def build(values: dict, **changes) -> Bottleneck:
    """The bottleneck these values describe, for features of shape FEATURES."""
    values = values | changes
    options = validate(BottleneckOptions.of_kind(values["kind"]), values, source="test")
    return load_member(Bottleneck, values["kind"])(options, FEATURES)


def example(kind: str, **changes) -> Bottleneck:
    """The first example of a kind, with some values changed."""
    return build(next(values for values in EXAMPLES if values["kind"] == kind), **changes)
