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
    "backbones": (
        "attention",
        "conv",
        "mlp",
        "patch_conv",
    ),
    "bottlenecks": (
        "beta",
        "cosine_vq",
        "ema_vq",
        "fsq",
        "gamma",
        "gaussian",
        "gumbel",
        "identity",
        "laplace",
        "lookup_free",
        "residual_vq",
        "score_function",
        "vq",
    ),
    "likelihoods": (
        "autoregressive",
        "bernoulli",
        "discretized_logistic",
        "gaussian",
        "laplace",
    ),
    "objectives": (
        "beta",
        "capacity",
    ),
    "autoencoders": (
        "conditional",
        "flat",
        "hierarchical_vae",
        "hierarchical_vq",
    ),
    "heads": (
        "categorical",
        "diffusion",
        "factorised",
        "flow",
        "mixture",
    ),
    "priors": (
        "depth_transformer",
        "gaussian_mixture",
        "masked",
        "pixel_cnn",
        "reference",
        "standard_normal",
        "transformer",
        "two_level",
        "uniform",
    ),
    "extractors": (
        "classifier",
        "inception",
        "mobilenet_v2",
        "resnet56_cifar10",
    ),
}
