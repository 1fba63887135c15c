"""Small options of every objective, and how to build one."""

from stages.core.sections import load_member, validate
from stages.objectives.base import Objective, ObjectiveOptions

ELBO = {
    "kind": "beta",
    "kl_weight": 1.0,
    "free_bits": 0.0,
    "annealing": "none",
    "annealing_steps": 0,
    "cycles": 1,
}
EXAMPLES = [
    ELBO,
    ELBO | {"kl_weight": 4.0, "free_bits": 0.2, "annealing": "cosine", "annealing_steps": 7},
    {"kind": "capacity", "gamma": 3.0, "capacity": 2.0, "capacity_steps": 5},
]


def build(values: dict, **changes) -> Objective:
    """The objective these values describe."""
    values = values | changes
    options = validate(ObjectiveOptions.of_kind(values["kind"]), values, source="test")
    return load_member(Objective, values["kind"])(options)
