"""Small options of every likelihood, and how to build one."""

from stages.core.sections import load_member, validate
from stages.core.shapes import ImageShape
from stages.likelihoods.base import Likelihood, LikelihoodOptions

IMAGE = ImageShape(3, 4, 2)


def autoregressive(
    levels: int, layers: int, context: int, rounding: str = "nearest", mean_sweeps: int = 2
) -> dict:
    """Options of `autoregressive`, of the smallest width."""
    return {
        "kind": "autoregressive",
        "levels": levels,
        "rounding": rounding,
        "layers": layers,
        "context": context,
        "width": 8,
        "mean_sweeps": mean_sweeps,
    }


EXAMPLES = [
    {"kind": "gaussian", "sigma": "fixed", "value": 0.1, "decay": 0.9},
    {"kind": "gaussian", "sigma": "learned", "value": 0.1, "decay": 0.9},
    {"kind": "gaussian", "sigma": "optimal", "value": 0.1, "decay": 0.9},
    {"kind": "laplace", "scale": "fixed", "value": 0.1, "decay": 0.9},
    {"kind": "laplace", "scale": "learned", "value": 0.1, "decay": 0.9},
    {"kind": "laplace", "scale": "optimal", "value": 0.1, "decay": 0.9},
    {"kind": "bernoulli", "binarise": "dynamic"},
    {"kind": "bernoulli", "binarise": "threshold"},
    autoregressive(levels=2, layers=0, context=0, rounding="dynamic"),
    autoregressive(levels=2, layers=3, context=2, rounding="dynamic"),
    autoregressive(levels=256, layers=1, context=1),
    {"kind": "discretized_logistic", "num_mixtures": 1, "channels": "independent"},
    {"kind": "discretized_logistic", "num_mixtures": 5, "channels": "independent"},
    {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "linear"},
]


def build(values: dict, image: ImageShape = IMAGE) -> Likelihood:
    """The likelihood these values describe."""
    options = validate(LikelihoodOptions.of_kind(values["kind"]), values, source="test")
    return load_member(Likelihood, values["kind"])(options, image)
