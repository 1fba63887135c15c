"""The table of contents: every member of every family, one line each.

A member's `kind` is its file name, its word in params.yaml, its path in dvc.yaml, its MLflow tag
and its test id. Stages load members by file name and do not read this table, so that adding a
member retrains nothing; the check of params.yaml, the contract tests and the docs do read it.
"""

__all__ = ["FAMILIES"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "datasets": (
        "cifar10",
        "digits",
        "fashion_mnist",
        "image_folder",
        "mnist",
        "shapes",
    ),
    "backbones": ("conv",),
    "bottlenecks": (
        "ema_vq",
        "gaussian",
        "identity",
        "vq",
    ),
    "likelihoods": (
        "bernoulli",
        "discretized_logistic",
        "gaussian",
    ),
    "autoencoders": ("flat",),
    "heads": (
        "categorical",
        "mixture",
    ),
    "priors": (
        "standard_normal",
        "transformer",
        "uniform",
    ),
}
