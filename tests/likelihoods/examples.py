"""Small options of every likelihood, and how to build one."""

from stages.core.sections import load_member, validate
from stages.core.shapes import ImageShape
from stages.likelihoods.base import Likelihood, LikelihoodOptions

IMAGE = ImageShape(3, 4, 2)
EXAMPLES = [
    {"kind": "gaussian", "sigma": "fixed", "value": 0.1, "decay": 0.9},
    {"kind": "gaussian", "sigma": "learned", "value": 0.1, "decay": 0.9},
    {"kind": "gaussian", "sigma": "optimal", "value": 0.1, "decay": 0.9},
    {"kind": "bernoulli", "binarise": "dynamic"},
    {"kind": "bernoulli", "binarise": "threshold"},
    {"kind": "discretized_logistic", "num_mixtures": 1},
    {"kind": "discretized_logistic", "num_mixtures": 5},
]


def build(values: dict) -> Likelihood:
    """The likelihood these values describe, for images of shape IMAGE."""
    options = validate(LikelihoodOptions.of_kind(values["kind"]), values, source="test")
    return load_member(Likelihood, values["kind"])(options, IMAGE)
