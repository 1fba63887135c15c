"""Laws of every bottleneck, found by listing the files of the family."""

import copy
import io
from pathlib import Path

import pytest
import torch

import stages.bottlenecks
from stages.nn.distributions import Posterior
from tests.bottlenecks.examples import EXAMPLES, FEATURES, build

every_example = pytest.mark.parametrize("values", EXAMPLES, ids=str)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def stored(bottleneck, features):
    """Latents as a prior would see them."""
    encoded = bottleneck.encode(features)
    return encoded.mean if isinstance(encoded, Posterior) else encoded


def test_every_member_has_an_example():
    files = Path(stages.bottlenecks.__path__[0]).glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == {v["kind"] for v in EXAMPLES}


@every_example
def test_shapes_are_those_of_the_spec(values):
    bottleneck, features = build(values), torch.randn(4, *FEATURES)
    spec = bottleneck.spec
    assert spec == bottleneck.options.latent_spec(FEATURES)
    grid = (spec.grid_height, spec.grid_width)
    result = bottleneck(features, stream())
    assert result.features.shape == features.shape
    if result.kl is not None:
        assert len(result.kl) == 4 and (result.kl >= 0).all()
    latents = stored(bottleneck, features)
    if spec.kind == "codes":
        assert latents.shape == (4, *grid) and latents.dtype == torch.int64
        assert latents.min() >= 0 and latents.max() < spec.num_codes
    else:
        assert latents.shape == (4, spec.channels, *grid) and latents.dtype == torch.float32
    assert bottleneck.decode(latents).shape == features.shape


@every_example
def test_every_parameter_gets_a_finite_gradient(values):
    bottleneck = build(values)
    features = torch.randn(4, *FEATURES, requires_grad=True)
    result = bottleneck(features, stream())
    kl = 0 if result.kl is None else result.kl.sum()
    surrogate = bottleneck.surrogate(result, result.features.detach().square().sum(dim=(1, 2, 3)))
    (result.features.square().sum() + kl + result.auxiliary + surrogate).backward()
    for name, parameter in [("features", features), *bottleneck.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_example
def test_a_pass_is_a_function_of_features_and_stream(values):
    one, features = build(values), torch.randn(4, *FEATURES)
    two = copy.deepcopy(one)
    first, second = one(features, stream()), two(features, stream())
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.auxiliary, second.auxiliary)


@every_example
def test_state_survives_saving_and_training_goes_on_the_same(values):
    """Start, step, save, load into a fresh member: the next steps are the same."""
    one, two = build(values), build(values)
    one.start_from_data(torch.randn(40, *FEATURES), stream(1))
    train(one, range(3))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two.load_state_dict(torch.load(file))
    assert train(one, range(3, 6)) == train(two, range(3, 6))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def train(bottleneck, steps):
    losses = []
    for step in steps:
        result = bottleneck(torch.randn(4, *FEATURES, generator=stream(step)), stream(step))
        losses.append((result.features.square().mean() + result.auxiliary).item())
        bottleneck.after_step(stream(100 + step))
    return losses


@every_example
def test_evaluation_changes_no_state(values):
    bottleneck = build(values).eval()
    before = copy.deepcopy(bottleneck.state_dict())
    bottleneck(torch.randn(4, *FEATURES), stream())
    bottleneck.after_step(stream())
    assert all(torch.equal(before[name], value) for name, value in bottleneck.state_dict().items())


@every_example
def test_statistics_are_scalars_without_a_graph(values):
    result = build(values)(torch.randn(4, *FEATURES), stream())
    assert all(v.shape == () and not v.requires_grad for v in result.statistics.values())
