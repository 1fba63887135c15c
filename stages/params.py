"""All of params.yaml, and what its sections must agree on.

Every stage calls `check` before it does anything, so that a mistake in a later section costs
nothing; `python -m stages.params` does the same for a person.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.assembly.judge import JudgeConfig, JudgeOptions, build_judge
from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.coding.codable import why_not_codable
from stages.core.artifacts import Artifact
from stages.core.devices import Device
from stages.core.errors import EXIT_USER_ERROR, LatentlineError, ParamsError
from stages.core.ranks import ComputeOptions
from stages.core.sections import PARAMS_PATH, parse_params, read_yaml
from stages.core.seeds import Seed
from stages.datasets.base import DatasetOptions
from stages.encoding.options import EncodeOptions
from stages.evaluation.options import EvaluateOptions
from stages.nn.discriminator import PatchDiscriminator
from stages.nn.transformer_options import CausalTransformerOptions
from stages.sampling.options import SamplingOptions
from stages.stores.latent_format import parse_header
from stages.tasks.adversary import AdversaryOptions
from stages.tasks.collapse_options import CollapseOptions
from stages.tasks.perceptual import PerceptualOptions
from stages.training.options import TrainingOptions

__all__ = ["Params", "check", "require_named_files", "require_suitable_data"]

_SOME_CLASSES = 1
"""How many the data have is known once they are prepared, of many sources."""
_SHAPES_ALONE = torch.device("meta")
"""Models built here take no memory, and no random stream is moved on."""


class Params(FirstStageParams, SecondStageParams):
    """Every section of params.yaml."""

    seed: Seed
    """Root of every random stream but sampling's own."""
    device: Device
    compute: ComputeOptions
    dataset: DatasetOptions
    judge: JudgeOptions
    train_judge: TrainingOptions
    train_autoencoder: TrainingOptions
    collapse: CollapseOptions
    perceptual: PerceptualOptions
    adversary: AdversaryOptions
    encode: EncodeOptions
    train_prior: TrainingOptions
    sampling: SamplingOptions
    evaluate: EvaluateOptions


def check(raw: dict[str, Any], *, source: str) -> Params:
    """Validate all sections and their combination.

    Args:
        raw: The mapping read from the file.
        source: What to call the file in messages.

    Raises:
        ParamsError: Naming the fields, what must hold and what came.
    """
    params = parse_params(Params, raw, source=source, strict=True)
    for rule in RULES:
        try:
            rule(params)
        except ValueError as error:
            raise ParamsError(f"{source}: {error}") from None
    return params


def require_named_files(params: Params) -> None:
    """The weights that a stage will open, the last one perhaps, are there.

    Not part of `check`: that a preset is valid depends on no machine.

    Raises:
        ParamsError: Naming what is missing.
    """
    evaluate, perceptual = params.evaluate, params.perceptual
    named = {f"evaluate.networks ({each.kind})": each.weights for each in evaluate.networks}
    if evaluate.lpips_weights:
        named["evaluate.lpips_weights"] = evaluate.lpips_weights
    if perceptual.weight:
        named["perceptual.weights"] = perceptual.weights
    for name, path in named.items():
        if not Path(path).exists():
            raise ParamsError(
                f"{name}: must name weights that are there, {path} is not; mend the path, or do "
                "without them: evaluate.networks [], evaluate.lpips_weights '', perceptual.weight 0"
            )


def require_suitable_data(params: Params, inputs: Mapping[str, Artifact]) -> None:
    """The data have the classes that models, and what is to be drawn, ask for.

    Not part of `check`: of many sources it is known once they are prepared.

    Args:
        params: Every section.
        inputs: What a stage reads, by type.

    Raises:
        ParamsError: Naming the field that asks for more.
    """
    if "prepared" in inputs:
        num_classes = len(inputs["prepared"].about["class_names"] or [])
    elif "latents" in inputs:
        latents = inputs["latents"]
        num_classes = parse_header(latents.about.get("header"), str(latents.path)).num_classes
    else:
        return
    params.sampling.classes_for(_classes_drawn(params, num_classes))


def _grid_divides(params: Params) -> None:
    params.backbone.feature_shape(params.dataset.image_shape)


def _codes_fit_their_type(params: Params) -> None:
    spec = _latent_spec(params)
    if spec.kind == "codes" and spec.num_codes > 2**32:
        raise ValueError(
            f"bottleneck: codes are stored in at most 32 bits, so num_codes must not exceed "
            f"{2**32}; got {spec.num_codes}"
        )


def _prior_models_the_latents(params: Params) -> None:
    stored, prior = _latent_spec(params).kind, params.prior
    if stored not in prior.models:
        raise ValueError(
            f"prior.kind: {prior.kind!r} models {' or '.join(prior.models)}, but bottleneck "
            f"{params.bottleneck.kind!r} stores {stored}; choose a prior for {stored}"
        )
    if prior.has_head and params.head.models != stored:
        raise ValueError(
            f"head.kind: {params.head.kind!r} describes {params.head.models}, but bottleneck "
            f"{params.bottleneck.kind!r} stores {stored}; choose a head for {stored}"
        )


def _models_can_be_built_and_drawn_from(params: Params) -> None:
    image, known = params.dataset.image_shape, params.dataset.num_classes
    adversary = params.adversary
    num_classes = _SOME_CLASSES if known is None else known
    with _SHAPES_ALONE:
        build_judge(JudgeConfig(judge=params.judge, image=image, num_classes=num_classes))
        if adversary.weight:
            PatchDiscriminator(image, adversary.width, adversary.layers)
    drawn = _classes_drawn(params, num_classes)
    if known is not None or drawn == 0:
        params.sampling.classes_for(drawn)


def _likelihood_suits_the_images(params: Params) -> None:
    channels = params.dataset.image_shape.channels
    if params.likelihood.kind == "bernoulli" and channels != 1:
        raise ValueError(
            f"likelihood.kind: 'bernoulli' describes grey images that are binarised; "
            f"dataset {params.dataset.kind!r} gives {channels} channels"
        )


def _latent_spec(params: Params, num_classes: int = _SOME_CLASSES) -> LatentSpec:
    features = params.backbone.feature_shape(params.dataset.image_shape)
    return params.autoencoder.latent_spec(params.bottleneck, features, num_classes)


def _classes_drawn(params: Params, num_classes: int) -> int:
    """How many classes can be asked for, where the data have so many; 0: none."""
    spec = _latent_spec(params, num_classes)
    with _SHAPES_ALONE:
        first = build_first_stage(params, params.dataset.image_shape, num_classes)
        prior = build_second_stage(params, spec, num_classes)
    return max(first.num_classes, prior.num_classes)


def _guidance_has_what_it_needs(params: Params) -> None:
    prior: Any = params.prior
    if params.sampling.guidance != 1 and prior.has_head and prior.label_dropout == 0:
        raise ValueError(
            f"sampling.guidance: other than 1 needs a prior that has also learned to do without "
            f"classes: prior.label_dropout must be above 0; got guidance "
            f"{params.sampling.guidance} and label_dropout {prior.label_dropout}"
        )


def _orders_become_raster_in_time(params: Params) -> None:
    last, steps = getattr(params.prior, "raster_from", 0), params.train_prior.steps
    if last > steps:
        raise ValueError(
            f"prior.raster_from: must not exceed train_prior.steps, or orders are random to the "
            f"end; got {last} of {steps}"
        )


def _weights_need_a_density(params: Params) -> None:
    density = params.prior.log_prob_is(params.head)
    if params.evaluate.iwae_prior_draws and density.kind == "bound":
        raise ValueError(
            f"evaluate.iwae_prior_draws: must be 0 with this prior and head, whose log_prob is no "
            f"density but a {density.how}; got {params.evaluate.iwae_prior_draws}"
        )


def _sampling_suits_the_latents(params: Params) -> None:
    params.sampling.check_latents(_latent_spec(params).kind)


def _settings_mean_something(params: Params) -> None:
    params.prior.check_settings(params.head, params.sampling.settings)


def _steps_to_hasten_are_there(params: Params) -> None:
    sampling = params.sampling
    for name, asked, neutral in (
        ("compile", sampling.compile, "false"),
        ("precision", sampling.precision == "bfloat16", "auto or float32"),
    ):
        if asked and not isinstance(params.prior, CausalTransformerOptions):
            raise ValueError(
                f"sampling.{name}: is of the steps of transformers that draw token by token; must "
                f"be {neutral} with prior.kind {params.prior.kind!r}"
            )


def _samples_suffice(params: Params) -> None:
    params.evaluate.check_samples(params.sampling.count)


def _coded_images_have_bits(params: Params) -> None:
    wanted = params.evaluate.coded_images
    reason = why_not_codable(params, params, _latent_spec(params))
    if wanted and reason:
        raise ValueError(f"evaluate.coded_images: must be 0 here, got {wanted}; {reason}")


def _adaptive_weights_need_a_graph(params: Params) -> None:
    adversary = params.adversary
    if adversary.weight and adversary.adaptive and params.train_autoencoder.compile:
        raise ValueError(
            "adversary.adaptive: looks into the graph of the model, which a compiled model hides; "
            "set train_autoencoder.compile: false or adversary.adaptive: false"
        )


def _every_process_has_a_piece(params: Params) -> None:
    size = params.compute.world_size
    for name in ("train_judge", "train_autoencoder", "train_prior"):
        pieces = getattr(params, name).pieces
        if 1 < pieces < size:
            raise ValueError(
                f"{name}.pieces: must be 1 (the stage stays in one process) or at least the "
                f"{size} processes of compute, so that each has a piece of every batch; "
                f"got {pieces}"
            )


def _an_adversary_sees_whole_batches(params: Params) -> None:
    pieces = params.train_autoencoder.pieces
    if params.adversary.weight and pieces > 1:
        raise ValueError(
            "adversary.weight: the discriminator takes its step on the whole batch before the "
            f"autoencoder does, so train_autoencoder.pieces must be 1 beside it; got {pieces}"
        )


def _cut_weights_lie_in_one_piece(params: Params) -> None:
    compute, options = params.compute, params.train_prior
    cut = compute.world_size > 1 and options.pieces > 1 and compute.prior_strategy == "fsdp"
    if cut and options.channels_last:
        raise ValueError(
            "train_prior.channels_last: must be false where compute.prior_strategy is fsdp, which "
            "cuts weights along their first axis; got true"
        )


RULES: tuple[Callable[[Params], None], ...] = (
    _grid_divides,
    _codes_fit_their_type,
    _prior_models_the_latents,
    _guidance_has_what_it_needs,
    _orders_become_raster_in_time,
    _sampling_suits_the_latents,
    _settings_mean_something,
    _models_can_be_built_and_drawn_from,
    _steps_to_hasten_are_there,
    _likelihood_suits_the_images,
    _weights_need_a_density,
    _samples_suffice,
    _coded_images_have_bits,
    _adaptive_weights_need_a_graph,
    _every_process_has_a_piece,
    _an_adversary_sees_whole_batches,
    _cut_weights_lie_in_one_piece,
)


def main() -> int:
    """Check params.yaml and say so."""
    try:
        params = check(read_yaml(PARAMS_PATH), source=str(PARAMS_PATH))
        require_named_files(params)
    except LatentlineError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    spec = _latent_spec(params)
    grid = f"{spec.grid_height}x{spec.grid_width}"
    print(f"{PARAMS_PATH}: valid; {spec.kind} on a {grid} grid from {params.dataset.kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
