"""What every prior promises, found by listing the files of the family."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

import stages.priors.base
from stages.assembly.second_stage import (
    SecondStageParams,
    build_second_stage,
    load_second_stage,
    save_second_stage,
)
from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import new_artifact
from stages.core.errors import ParamsError
from stages.core.sections import parse_params
from stages.heads.base import SamplerSettings
from stages.priors.base import PriorOptions
from tests.priors.sections import BLOCKS, SIZES, TRANSFORMER

KINDS = sorted(
    path.stem
    for path in Path(stages.priors.base.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "base")
)
SPECS = {
    "codes": LatentSpec("codes", 2, 3, num_codes=5),
    "levels": LatentSpec("codes", 1, 10, num_codes=5, parts=((1, 2), (2, 4))),
    "stack": LatentSpec("codes", 1, 18, num_codes=5, parts=((2, 3),) * 3),
    "continuous": LatentSpec("continuous", 2, 3, channels=4, scale=1.7),
    "continuous, diffusion": LatentSpec("continuous", 2, 3, channels=4),
    "continuous, flow": LatentSpec("continuous", 2, 3, channels=4),
}
HEADS = {
    "codes": {"kind": "categorical", "tied": False},
    "continuous": {
        "kind": "mixture",
        "components": 3,
        "std_floor": 1e-3,
        "guidance_candidates": 2,
    },
    "continuous, diffusion": {
        "kind": "diffusion",
        "blocks": 1,
        "width": 8,
        "draws": 2,
        "noise_floor": 0.01,
        "sampling_steps": 4,
        "eta": 1.0,
        "bound_points": 8,
    },
    "continuous, flow": {
        "kind": "flow",
        "blocks": 1,
        "width": 8,
        "draws": 2,
        "times": "logit_normal",
        "solver": "midpoint",
        "sampling_steps": 2,
        "density_steps": 3,
    },
}
PRIORS = {
    "depth_transformer": {"layers": 2, "depth_layers": 1, **BLOCKS},
    "gaussian_mixture": {
        "components": 3,
        "covariance": "full",
        "per_class": True,
        "covariance_floor": 1e-3,
        "kmeans_iterations": 2,
        "draws": 1,
        "max_passes": 2,
        "tolerance": 0.0,
    },
    "masked": {
        "layers": 2,
        "masking": "cosine",
        "label_smoothing": 0.1,
        "decoding_steps": 3,
        "choice_temperature": 2.0,
        "bound_masks": 6,
        "dropout": 0.0,
        **SIZES,
    },
    "pixel_cnn": {
        "layers": 2,
        "width": 12,
        "kernel_size": 3,
        "dropout": 0.0,
        "label_dropout": 0.1,
    },
    "transformer": TRANSFORMER,
    "two_level": {"coarse_layers": 1, "fine_layers": 2, "context_blocks": 1, **BLOCKS},
}
FACTORISED = {"kind": "factorised", "first": 2}
NUM_CLASSES, COUNT = 7, 3
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)


def parameters(kind, stored, head=None):
    head = head or HEADS.get(stored, HEADS[SPECS[stored].kind])
    raw = {"prior": {"kind": kind, **PRIORS.get(kind, {})}, "head": head}
    return parse_params(SecondStageParams, raw, source="params.yaml", strict=True)


def can_model(kind, stored):
    try:
        parameters(kind, stored).prior.check_latents(SPECS[stored])
    except ParamsError:
        return False
    return True


CASES = [(kind, stored) for kind in KINDS for stored in SPECS if can_model(kind, stored)]


def build(kind, stored):
    torch.manual_seed(0)
    return build_second_stage(parameters(kind, stored), SPECS[stored], NUM_CLASSES).eval()


def random_latents(stored):
    spec = SPECS[stored]
    if spec.kind == "codes":
        return torch.randint(0, spec.num_codes, (COUNT, spec.grid_height, spec.grid_width))
    return torch.randn(COUNT, spec.channels, spec.grid_height, spec.grid_width)


def labels_for(prior):
    return torch.arange(COUNT) if prior.num_classes else None


@dataclass(frozen=True, kw_only=True)
class Recorder(SamplerSettings):
    """Draws as usual, and keeps how long the lists were that were drawn from."""

    lists: list[tuple[int, int]] = field(default_factory=list)

    def choose(self, logits, uniforms):
        self.lists.append(tuple(logits.shape))
        return super().choose(logits, uniforms)


@pytest.mark.parametrize(("kind", "stored"), [case for case in CASES if "contin" not in case[1]])
@pytest.mark.parametrize("whole", [True, False])
def test_who_draws_codes_in_turn_asks_for_each_from_the_list_of_all(kind, stored, whole):
    heads = HEADS["codes"] if whole else FACTORISED
    spec = replace(SPECS[stored], num_codes=6)
    params = parameters(kind, stored, heads)
    prior = build_second_stage(params, spec, NUM_CLASSES).eval()
    recorder = Recorder()
    prior.sample(labels_for(prior), torch.rand(COUNT, *prior.noise_shape), recorder)
    each_code = recorder.lists == [(COUNT, spec.num_codes)] * spec.tokens
    assert each_code == (
        params.prior.in_turn and (not params.prior.has_head or params.head.whole_codes)
    )


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_log_prob_and_loss_agree(kind, stored):
    prior, latents = build(kind, stored), random_latents(stored)
    prior.label_dropout = 0.0
    nats = prior.log_prob(latents, labels_for(prior))
    assert nats.shape == (COUNT,) and nats.dtype == torch.float32
    if prior.log_prob_is.kind != "exact":
        # What trains it is something else.
        assert prior.loss(latents, labels_for(prior)).isfinite()
        return
    per_token = -nats.mean() / prior.spec.tokens
    torch.testing.assert_close(prior.loss(latents, labels_for(prior)), per_token)
    torch.testing.assert_close(prior(latents, labels_for(prior)), per_token)


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_what_latents_are_worth_depends_on_nothing_but_themselves(kind, stored):
    prior, latents, state = build(kind, stored), random_latents(stored), torch.get_rng_state()
    labels = labels_for(prior)
    with torch.inference_mode():
        nats = prior.log_prob(latents, labels)
        order = torch.tensor([2, 0, 1])
        again = prior.log_prob(latents[order], None if labels is None else labels[order])
    torch.testing.assert_close(again, nats[order], rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_one_stream_gives_one_loss(kind, stored):
    prior, latents, losses = build(kind, stored).train(), random_latents(stored), []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(prior.loss(latents, labels_for(prior)))
    assert torch.equal(*losses)


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_every_parameter_gets_a_finite_gradient(kind, stored):
    prior = build(kind, stored)
    assert bool(list(prior.parameters())) == PriorOptions.of_kind(kind).trainable
    for parameter in prior.parameters():
        # Away from the start, where some layers are zero and hide those before them.
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    if PriorOptions.of_kind(kind).trainable:
        prior.loss(random_latents(stored), labels_for(prior)).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_samples_are_latents_that_the_prior_can_judge(kind, stored):
    prior = build(kind, stored)
    uniforms = torch.rand(COUNT, *prior.noise_shape)
    latents = prior.sample(labels_for(prior), uniforms, MODEL)
    assert latents.shape == random_latents(stored).shape
    assert latents.dtype == random_latents(stored).dtype
    assert prior.log_prob(latents, labels_for(prior)).isfinite().all()
    if prior.spec.kind == "codes":
        assert 0 <= latents.min() and latents.max() < prior.spec.num_codes
    assert torch.equal(latents, prior.sample(labels_for(prior), uniforms, MODEL))


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_the_whole_range_of_uniforms_gives_valid_latents(kind, stored):
    prior = build(kind, stored)
    for edge in (2.0**-25, 1 - 2.0**-24):
        uniforms = torch.full((COUNT, *prior.noise_shape), edge)
        latents = prior.sample(labels_for(prior), uniforms, MODEL)
        assert prior.log_prob(latents, labels_for(prior)).isfinite().all()


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_a_saved_prior_comes_back_equal(kind, stored, tmp_path):
    prior, latents = build(kind, stored), random_latents(stored)
    with new_artifact(tmp_path / "prior", "prior", {}) as folder:
        save_second_stage(folder, prior, parameters(kind, stored), "a" * 64, "b" * 64)
    loaded = load_second_stage(tmp_path / "prior", torch.device("cpu"))
    assert loaded.prior.spec == prior.spec and loaded.prior.num_classes == prior.num_classes
    assert (loaded.autoencoder_digest, loaded.latents_digest) == ("a" * 64, "b" * 64)
    assert loaded.params.model_dump() == parameters(kind, stored).model_dump()
    labels = labels_for(prior)
    assert torch.equal(loaded.prior.log_prob(latents, labels), prior.log_prob(latents, labels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", SPECS)
def test_latents_it_cannot_model_are_refused(kind, stored):
    if (kind, stored) in CASES:
        return
    with pytest.raises(ParamsError, match=f"prior.kind: '{kind}' models .* but the \\w+ stores"):
        build(kind, stored)
