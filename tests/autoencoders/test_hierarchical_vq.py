"""Two grids of codes: each fed and started in its turn, both seen by the decoder."""

import copy

import pytest
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.bottlenecks.base import BottleneckOptions
from stages.core.errors import ParamsError
from stages.core.sections import parse_params, validate
from stages.core.shapes import FeatureShape, ImageShape
from stages.nn.categorical import kl_to_uniform
from stages.nn.code_grids import grids_of_row, row_of_grids
from tests.backbones.examples import conv
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 16, 24)
COARSE, FINE = (2, 3), (4, 6)
LEVEL = {
    "kind": "hierarchical_vq",
    "coarse_levels": 1,
    "width": 8,
    "blocks": 1,
    "fine_dropout": 0.0,
}
EMA = next(values for values in BOTTLENECKS if values["kind"] == "ema_vq")


def specification(values):
    options = validate(BottleneckOptions.of_kind(values["kind"]), values, source="test")
    return options.latent_spec(FeatureShape(10, *FINE))


ONE_GRID = [
    values
    for values in BOTTLENECKS
    if specification(values).kind == "codes" and not specification(values).parts
]
every_bottleneck = pytest.mark.parametrize("bottleneck", ONE_GRID, ids=str)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def build(bottleneck=EMA, image=IMAGE, objective=ELBO, **changes):
    sections = {
        "autoencoder": LEVEL | changes,
        "backbone": conv([8, 10], 1),
        "bottleneck": bottleneck,
        "likelihood": {"kind": "gaussian", "sigma": "optimal", "value": 0.2, "decay": 0.9},
        "objective": objective,
    }
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    torch.manual_seed(0)
    return build_first_stage(params, image)


def some_images(batch=5):
    """Smooth images: a different slope each."""
    slopes = torch.randn(batch, 3, 2, 1, 1, generator=stream(9))
    rows = torch.linspace(-1, 1, IMAGE.height)[:, None]
    columns = torch.linspace(-1, 1, IMAGE.width)
    return torch.tanh(2 * (slopes[:, :, 0] * rows + slopes[:, :, 1] * columns))


def passes(autoencoder):
    """What both bottlenecks give in the passes to come."""
    seen = []
    for bottleneck in (autoencoder.coarse_bottleneck, autoencoder.fine_bottleneck):
        bottleneck.register_forward_hook(lambda m, inputs, passed: seen.append(passed))
    return seen


@every_bottleneck
def test_every_bottleneck_of_one_grid_trains_encodes_and_decodes(bottleneck):
    autoencoder, images = build(bottleneck), some_images()
    seen = passes(autoencoder)
    result = autoencoder(images, generator=stream())
    assert result.reconstructions.shape == images.shape
    result.loss.backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    spec = autoencoder.spec
    assert (spec.parts, spec.grid_height, spec.grid_width) == ((COARSE, FINE), 1, 6 + 24)
    codes = autoencoder.encode(images)
    assert codes.shape == result.codes.shape == (5, 1, 30) and codes.dtype == torch.int64
    assert 0 <= codes.min() and codes.max() < spec.num_codes
    assert autoencoder.decode(codes).shape == images.shape
    charged = [passed.kl.flatten(1) for passed in seen if passed.kl is not None]
    if charged:
        assert torch.equal(result.kl, torch.cat(charged, dim=1))
        assert result.kl.shape[1] == sum(autoencoder.kl_groups.values())
    else:
        assert result.kl.shape == (5, 0)
    for level in ("coarse", "fine"):
        assert 0 < result.statistics[f"{level}_code_usage"] <= 1
        assert 1 <= result.statistics[f"{level}_code_perplexity"] <= spec.num_codes + 1e-3


@every_bottleneck
def test_the_loss_sums_both_levels(bottleneck):
    autoencoder = build(bottleneck, objective=ELBO | {"kl_weight": 3.0})
    seen = passes(autoencoder)
    result = autoencoder(some_images(), generator=stream())
    coarse, fine = seen
    kl = sum(0 if p.kl is None else p.kl.sum(dim=(1, 2, 3)) for p in seen)
    total = result.distortion + kl
    surrogate = autoencoder.coarse_bottleneck.surrogate(coarse, total)
    surrogate = surrogate + autoencoder.fine_bottleneck.surrogate(fine, total)
    nats = (result.distortion + 3 * kl).mean() + surrogate
    expected = nats / IMAGE.dims + coarse.auxiliary + fine.auxiliary
    torch.testing.assert_close(result.loss, expected)


@every_bottleneck
def test_a_pass_without_training_gives_what_decoding_its_codes_gives(bottleneck):
    autoencoder, images = build(bottleneck).eval(), some_images()
    result, codes = autoencoder(images), autoencoder.encode(images)
    if torch.equal(result.codes, codes):
        again = autoencoder.likelihood.mean(autoencoder.decode(codes))
        torch.testing.assert_close(result.reconstructions, again)
    else:
        assert result.kl.shape[1], f"{bottleneck['kind']} draws no codes, so they are the same"


@torch.no_grad()
def test_the_fine_level_is_told_the_coarse_codes_and_not_the_other_way_round():
    autoencoder, images = build().eval(), some_images()
    coarse, fine = grids_of_row(autoencoder.encode(images), (COARSE, FINE))
    autoencoder.coarse_bottleneck.project_out.weight.mul_(-3)
    same, told = grids_of_row(autoencoder.encode(images), (COARSE, FINE))
    assert torch.equal(same, coarse) and not torch.equal(told, fine)
    autoencoder.join_features.weight.normal_()
    same, told_again = grids_of_row(autoencoder.encode(images), (COARSE, FINE))
    assert torch.equal(same, coarse) and not torch.equal(told_again, told)


def test_both_grids_reach_the_picture_and_may_come_from_different_images():
    autoencoder, codes = build().eval(), torch.randint(7, (5, 1, 30), generator=stream(1))
    coarse, fine = grids_of_row(codes, (COARSE, FINE))
    pictures = autoencoder.decode(codes)
    for mixed in ([coarse.flip(0), fine], [coarse, fine.flip(0)]):
        others = autoencoder.decode(row_of_grids(mixed))
        apart = (others - pictures).abs().flatten(1).amax(dim=1)
        assert (apart[[0, 1, 3, 4]] > 1e-4).all() and apart[2] < 1e-5


def test_resampling_a_level_changes_that_level_alone_and_every_image():
    autoencoder, codes = build(), torch.arange(30) + 100 * torch.arange(5).view(5, 1, 1)
    for level in (0, 1):
        grids = grids_of_row(autoencoder.resample_level(codes, level, stream()), (COARSE, FINE))
        own = grids_of_row(codes, (COARSE, FINE))
        assert torch.equal(grids[1 - level], own[1 - level])
        owner = grids[level].div(100, rounding_mode="floor")
        assert (owner == owner[:, :1, :1]).all(), "a grid stays whole"
        assert (owner[:, 0, 0] != torch.arange(5)).all()
        assert torch.equal(grids[level] % 100, own[level] % 100), "codes stay in their cells"


def test_training_hides_the_fine_level_from_as_many_images_as_asked():
    autoencoder, given = build(fine_dropout=0.3), []
    autoencoder.join_vectors.register_forward_hook(lambda m, inputs, out: given.append(inputs[0]))
    images = some_images().repeat(160, 1, 1, 1)
    with torch.no_grad():
        result = autoencoder(images, generator=stream())
        autoencoder.eval()(images[:5], generator=stream())
    fine, said = given[0].chunk(2, dim=1)
    hidden = (fine.flatten(1) == 0).all(dim=1)
    # Five standard errors of 800 draws.
    assert hidden.double().mean().item() == pytest.approx(0.3, abs=5 * (0.21 / 800) ** 0.5)
    assert (fine.flatten(1)[~hidden] != 0).any(dim=1).all() and said.flatten(1).any(dim=1).all()
    assert result.codes.shape == (800, 1, 30)
    assert (given[1].chunk(2, dim=1)[0].flatten(1) != 0).any(dim=1).all(), "never when in use"


def test_a_coarse_code_reaches_only_what_lies_near_it():
    """Grids are cut and put together in the right order: places stay where they are."""
    autoencoder = build(image=ImageShape(3, 64, 96), blocks=0).eval()
    coarse = torch.randint(7, (1, 8, 12), generator=stream(1))
    fine = torch.randint(7, (1, 16, 24), generator=stream(2))
    pictures = []
    for code in range(7):
        coarse[0, 0, 11] = code
        pictures.append(autoencoder.decode(row_of_grids([coarse, fine])))
    changed = (torch.cat(pictures).var(dim=0).sum(dim=0) > 1e-12).nonzero()
    # The cell covers rows 0 to 7, columns 88 to 95; the decoder looks less than two cells further.
    assert changed[:, 0].max() < 24 and changed[:, 1].min() >= 72
    assert (changed[:, 0] < 8).any() and (changed[:, 1] >= 88).any()


def test_the_fine_codebook_starts_on_features_joined_with_the_started_coarse_codes(monkeypatch):
    autoencoder, images = build(), some_images(12)
    before = autoencoder.eval()(images).statistics
    given = []
    start = autoencoder.fine_bottleneck.start_from_data
    monkeypatch.setattr(
        autoencoder.fine_bottleneck,
        "start_from_data",
        lambda features, generator: given.append(features) or start(features, generator),
    )
    autoencoder.start_from_data(images, None, stream())
    inputs = []
    autoencoder.fine_bottleneck.register_forward_hook(lambda m, i, passed: inputs.append(i[0]))
    after = autoencoder(images).statistics
    torch.testing.assert_close(given[0], inputs[0])
    for level in ("coarse", "fine"):
        assert after[f"{level}_commitment"] < before[f"{level}_commitment"]
        assert after[f"{level}_code_perplexity"] > 3


def test_dead_codes_of_both_levels_are_revived_by_different_numbers(monkeypatch):
    autoencoder = build(EMA | {"decay": 0.0, "revive_below": 0.5})
    levels = autoencoder.coarse_bottleneck, autoencoder.fine_bottleneck
    states = []
    for level in levels:
        level.codebook.entries[1:] += 1000
        mend = level.after_step
        monkeypatch.setattr(
            level, "after_step", lambda g, mend=mend: states.append(g.get_state()) or mend(g)
        )
    autoencoder(some_images())
    autoencoder.after_step(stream())
    assert len(states) == 2 and not torch.equal(*states)
    for level in levels:
        assert (level.codebook.entries.abs() < 500).all()


def test_state_survives_saving_and_training_goes_on_the_same():
    one, two = build(), build(blocks=1)
    one.start_from_data(some_images(), None, stream())
    train(one, range(2))
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert train(one, range(2, 4)) == train(two, range(2, 4))


def train(autoencoder, steps):
    optimizer = torch.optim.SGD(autoencoder.parameters(), lr=1e-3)
    losses, images = [], some_images()
    for step in steps:
        optimizer.zero_grad()
        result = autoencoder(images, None, stream(step), torch.tensor(float(step)))
        result.loss.backward()
        optimizer.step()
        autoencoder.after_step(stream(step))
        losses.append(result.loss.item())
    return losses


def test_a_few_steps_fit_a_few_images():
    autoencoder, images = build(), some_images(2)
    autoencoder.start_from_data(images, None, stream())
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2)
    errors = []
    for step in range(30):
        optimizer.zero_grad()
        result = autoencoder(images, None, stream(step), torch.tensor(float(step)))
        result.loss.backward()
        optimizer.step()
        autoencoder.after_step(stream(step))
        errors.append((result.reconstructions - images).square().mean().item())
    assert min(errors[-5:]) < 0.6 * errors[0]


def test_a_grid_may_be_halved_more_often():
    autoencoder = build(image=ImageShape(3, 32, 48), coarse_levels=2)
    assert autoencoder.spec.parts == ((2, 3), (8, 12))
    codes = torch.zeros(1, 1, 6 + 96, dtype=torch.int64)
    assert autoencoder.decode(codes).shape == (1, 3, 32, 48)


def test_a_grid_that_cannot_be_halved_is_a_mistake_in_params():
    message = "coarse_levels: 2 halvings .* multiples of 4; they are 4x6"
    with pytest.raises(ParamsError, match=message):
        build(coarse_levels=2)


def test_bottlenecks_without_one_code_per_cell_are_refused():
    refused = [values for values in BOTTLENECKS if values not in ONE_GRID]
    assert refused
    for values in refused:
        with pytest.raises(ParamsError, match=f"one code per cell .* '{values['kind']}' stores"):
            build(values)


def test_each_grid_has_a_codebook():
    assert build().codebook_parts == (COARSE, FINE)


def exact_gradient(autoencoder, image, kl_weight, codes, bias):
    """Of E[distortion + weighted KL] with respect to the coarse logits, by enumeration."""
    features = autoencoder.backbone.encoder(image)
    coarse = autoencoder.coarse_bottleneck.logits(autoencoder.coarse_encoder(features))
    fine_grids = torch.cartesian_prod(*[torch.arange(codes)] * 4).view(-1, 2, 2)
    expected = kl_weight * kl_to_uniform(coarse).sum()
    for code, probability in enumerate(coarse.softmax(dim=-1).flatten()):
        vectors = autoencoder.coarse_bottleneck.decode(torch.full((1, 1, 1), code))
        said = autoencoder.coarse_decoder(vectors)
        joined = autoencoder.join_features(torch.cat([features, said], dim=1))
        logits = autoencoder.fine_bottleneck.logits(joined).view(4, codes)
        chances = logits.log_softmax(dim=-1)[torch.arange(4), fine_grids.flatten(1)].sum(1).exp()
        decoded = autoencoder.fine_bottleneck.decode(fine_grids)
        parameters = autoencoder._decode(said.expand(len(decoded), -1, -1, -1), decoded)
        errors = -autoencoder.likelihood.log_prob(
            image.expand(len(decoded), -1, -1, -1), parameters
        )
        inner = (chances * errors).sum() + kl_weight * kl_to_uniform(logits).sum()
        expected = expected + probability * inner
    return torch.autograd.grad(expected, bias)[0]


@pytest.mark.parametrize("kl_weight", [0.0, 4.0])
def test_drawn_coarse_codes_pay_the_weighted_kl_of_the_fine_ones(kl_weight):
    codes, size = 3, ImageShape(1, 8, 8)
    drawn = {
        "kind": "score_function",
        "num_codes": codes,
        "dim": 2,
        "baseline_width": 4,
        "baseline_decay": 0.9,
    }
    autoencoder = build(drawn, size, ELBO | {"kl_weight": kl_weight}, width=4, blocks=0)
    for parameter in autoencoder.parameters():
        if parameter.ndim >= 2:  # nothing starts at zero
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=stream(3))
    autoencoder.train()
    image = torch.rand(1, 1, 8, 8, generator=stream(1)) * 2 - 1
    bias = autoencoder.coarse_bottleneck.logits.layer.bias
    wanted = exact_gradient(autoencoder, image, kl_weight, codes, bias)
    for bottleneck in (autoencoder.coarse_bottleneck, autoencoder.fine_bottleneck):
        # A baseline near the cost quiets the estimate and moves it nowhere.
        bottleneck.baseline.batches.fill_(10)
        distortion = autoencoder(image, None, stream()).distortion.detach()
        bottleneck.baseline.mean.fill_(float(distortion))
    found = []
    for seed in range(16):
        result = autoencoder(image.expand(512, -1, -1, -1), None, stream(seed))
        found.append(torch.autograd.grad(result.loss * image.numel(), bias)[0])
    estimates = torch.stack(found)
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    assert ((estimates.mean(dim=0) - wanted).abs() < 5 * error).all()
    # Precise enough to tell the weight of the fine KL.
    assert (error < 0.05 * wanted.abs().max()).all()
