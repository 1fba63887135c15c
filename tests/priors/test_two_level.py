"""Priors over several grids: exact, causal in their own order, sampled as they are scored."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import load_member, validate
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalHead, CategoricalOptions
from stages.nn.code_grids import grids_of_row, row_of_grids
from stages.priors.base import Prior, PriorOptions
from tests.priors.sections import BLOCKS, TRANSFORMER

NUM_CLASSES, WIDTH = 2, 12
LEVELS, STACK = ((1, 2), (2, 2)), ((1, 2), (1, 2), (1, 2))
SIZES = {**BLOCKS, "width": WIDTH, "num_heads": 3}
OPTIONS = {
    "two_level": {"coarse_layers": 2, "fine_layers": 1, "context_blocks": 1, **SIZES},
    "depth_transformer": {"layers": 2, "depth_layers": 1, **SIZES},
    "transformer": {**TRANSFORMER, **SIZES},
}
CASES = [
    ("two_level", LEVELS),
    ("depth_transformer", STACK),
    ("transformer", LEVELS),
    ("transformer", STACK),
]
every_case = pytest.mark.parametrize(("kind", "parts"), CASES, ids=str)
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)


def spec_of(parts, num_codes=2):
    tokens = sum(rows * columns for rows, columns in parts)
    return LatentSpec("codes", 1, tokens, num_codes=num_codes, parts=parts)


def build(kind, parts, num_classes=NUM_CLASSES, num_codes=2, **changes):
    torch.manual_seed(0)
    values = {"kind": kind, **OPTIONS[kind], **changes}
    options = validate(PriorOptions.of_kind(kind), values, source="params.yaml")
    head = CategoricalOptions(kind="categorical", tied=False)
    prior = load_member(Prior, kind)(options, head, spec_of(parts, num_codes), num_classes)
    for parameter in prior.parameters():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    return prior.eval()


def all_rows(prior):
    """Every row of codes there is."""
    codes = itertools.product(range(prior.spec.num_codes), repeat=prior.spec.tokens)
    return torch.tensor(list(codes)).unsqueeze(1)


def order_of(kind, parts):
    """Tokens in the order in which they are drawn."""
    tokens = list(range(sum(rows * columns for rows, columns in parts)))
    if kind != "depth_transformer":
        return tokens
    cells = parts[0][0] * parts[0][1]
    return [depth * cells + cell for cell in range(cells) for depth in range(len(parts))]


@every_case
@pytest.mark.parametrize("label", [0, 1, None])
@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one(kind, parts, label):
    prior = build(kind, parts)
    rows = all_rows(prior)
    labels = None if label is None else torch.full((len(rows),), label)
    total = prior.log_prob(rows, labels).double().exp().sum().item()
    assert total == pytest.approx(1, abs=1e-5)


@every_case
@torch.no_grad()
def test_every_code_depends_on_those_before_it(kind, parts):
    """No grid is forgotten: p(z) is not the product of parts of which one is ignored."""
    prior = build(kind, parts)
    rows = all_rows(prior)
    joint = prior.log_prob(rows, None).double().exp().view((2,) * prior.spec.tokens)
    axes = set(range(prior.spec.tokens))
    for first, second in itertools.combinations(axes, 2):
        pair = joint.sum(dim=tuple(axes - {first, second}))
        product = pair.sum(dim=1, keepdim=True) * pair.sum(dim=0, keepdim=True)
        assert (pair - product).abs().max() > 1e-6, (first, second)


def watched(monkeypatch):
    """Embedded codes and the nats of each token, as heads give them, in order of the calls."""
    embedded, nats = [], []
    embed, log_prob = CategoricalHead.embed, CategoricalHead.log_prob

    def keep_embedded(self, tokens):
        embedded.append(embed(self, tokens).detach().requires_grad_())
        return embedded[-1]

    def keep_nats(self, hidden, tokens):
        nats.append(log_prob(self, hidden, tokens))
        return nats[-1]

    monkeypatch.setattr(CategoricalHead, "embed", keep_embedded)
    monkeypatch.setattr(CategoricalHead, "log_prob", keep_nats)
    return embedded, nats


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("two_level", ((1, 3), (2, 3))),
        ("depth_transformer", ((2, 2),) * 3),
        ("transformer", ((1, 2), (2, 2))),
    ],
    ids=str,
)
def test_a_token_is_predicted_without_itself_and_those_after_it(kind, parts, monkeypatch):
    prior = build(kind, parts, num_codes=5)
    embedded, nats = watched(monkeypatch)
    prior.log_prob(torch.randint(0, 5, (2, 1, prior.spec.tokens)), torch.tensor([0, 1]))
    order = order_of(kind, parts)
    scores = torch.cat(nats, dim=1)[:, order]
    for position in range(prior.spec.tokens):
        gradients = torch.autograd.grad(
            scores[:, position].sum(), embedded, retain_graph=True, materialize_grads=True
        )
        # A head embeds all codes of its grid but, where it is never looked at, the last.
        reached = torch.zeros(prior.spec.tokens)
        at = 0
        for (rows, columns), gradient in zip(parts_embedded(kind, parts), gradients, strict=True):
            seen = gradient.abs().amax(dim=(0, 2))
            reached[at : at + len(seen)] = seen
            at += rows * columns
        reached = reached[order]
        assert (reached[position:] == 0).all(), position
        if kind != "two_level":
            assert (reached[:position] > 0).all(), position


def parts_embedded(kind, parts):
    return [(1, sum(r * c for r, c in parts))] if kind == "transformer" else parts


@torch.no_grad()
def test_the_fine_level_reads_its_own_past_and_all_of_the_coarse_grid():
    prior = build("two_level", ((2, 3), (4, 6)), num_codes=5)
    codes = torch.randint(0, 5, (1, 1, 30))
    coarse, fine = grids_of_row(codes, ((2, 3), (4, 6)))
    context = prior.context(coarse)
    assert context.shape == (1, 24, WIDTH)
    classes = torch.tensor([NUM_CLASSES])
    before = prior.fine.log_prob(fine, classes, context)
    for row, column in itertools.product(range(2), range(3)):
        other = coarse.clone()
        other[0, row, column] = (other[0, row, column] + 1) % 5
        changed = (prior.context(other) - context).abs().amax(dim=2).view(4, 6)
        covered = changed[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert (covered > 1e-3).all(), "a fine cell is told the code of its own place"
        assert not torch.equal(prior.fine.log_prob(fine, classes, prior.context(other)), before)


@torch.no_grad()
def test_without_context_blocks_a_coarse_code_speaks_to_its_own_cells_only():
    prior = build("two_level", ((2, 3), (4, 6)), num_codes=5, context_blocks=0)
    coarse = torch.randint(0, 5, (1, 2, 3))
    expected = prior.context_embedding(coarse)
    context = prior.context(coarse).view(1, 4, 6, WIDTH)
    for row, column in itertools.product(range(4), range(6)):
        assert torch.equal(context[0, row, column], expected[0, row // 2, column // 2])


@every_case
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_cached_sampling_sees_the_states_of_the_full_forward(kind, parts, guidance, monkeypatch):
    prior = build(kind, parts, num_codes=5)
    labels = torch.tensor([0, 1, 1, 0])
    drawn, draw, log_prob = [], CategoricalHead.sample, CategoricalHead.log_prob

    def remember(self, hidden, unconditional, uniforms, how):
        drawn.append((hidden, unconditional))
        return draw(self, hidden, unconditional, uniforms, how)

    monkeypatch.setattr(CategoricalHead, "sample", remember)
    how = SamplerSettings(**{**vars(MODEL), "guidance": guidance})
    latents = prior.sample(labels, torch.rand(4, *prior.noise_shape), how)
    order = order_of(kind, parts)
    for given, which in ((labels, 0), (None, 1)):
        if guidance == 1 and which == 1:
            continue
        states = []
        monkeypatch.setattr(
            CategoricalHead,
            "log_prob",
            lambda self, hidden, tokens, s=states: (
                s.append(hidden) or log_prob(self, hidden, tokens)
            ),
        )
        prior.log_prob(latents, given)
        full = torch.cat(states, dim=1)[:, order]
        cached = torch.stack([pair[which] for pair in drawn], dim=1)
        torch.testing.assert_close(cached, full, rtol=1e-4, atol=1e-4)
    assert all((unconditional is None) == (guidance == 1) for _, unconditional in drawn)


@every_case
@torch.no_grad()
def test_sampled_grids_have_the_probabilities_of_the_prior(kind, parts):
    prior, count = build(kind, parts), 10_000
    labels = torch.ones(count, dtype=torch.int64)
    codes = prior.sample(labels, torch.rand(count, *prior.noise_shape), MODEL)
    rows = all_rows(prior)
    place = 2 ** torch.arange(prior.spec.tokens - 1, -1, -1)
    counts = torch.bincount((codes.flatten(1) * place).sum(1), minlength=len(rows))
    expected = count * prior.log_prob(rows, torch.ones(len(rows)).long()).double().exp()
    common = expected > 5
    # Pearson's test over the grids expected five times or more, the others pooled, at level 1e-4.
    pooled = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum().clamp(min=1e-9)[None]])
    statistic = ((pooled - wanted).square() / wanted).sum().item()
    assert statistic < chi2.isf(1e-4, len(pooled) - 1)


@every_case
def test_an_image_is_a_function_of_its_class_and_its_own_numbers(kind, parts):
    prior = build(kind, parts, num_codes=5)
    uniforms, labels = torch.rand(6, *prior.noise_shape), torch.tensor([0, 1, 0, 1, 1, 0])
    for guidance in (1.0, 2.0):
        how = SamplerSettings(**{**vars(MODEL), "guidance": guidance})
        whole = prior.sample(labels, uniforms, how)
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        assert torch.equal(prior.sample(labels[order], uniforms[order], how), whole[order])


@every_case
def test_guidance_0_ignores_the_class_and_needs_label_dropout(kind, parts):
    prior, labels = build(kind, parts, num_codes=5), torch.tensor([0, 1, 1, 0])
    uniforms = torch.rand(4, *prior.noise_shape)
    none = SamplerSettings(**{**vars(MODEL), "guidance": 0.0})
    free = prior.sample(labels, uniforms, none)
    assert torch.equal(free, prior.sample(1 - labels, uniforms, none))
    assert torch.equal(free, prior.sample(None, uniforms, MODEL))
    for other, given in (
        (build(kind, parts, num_classes=0), labels),
        (build(kind, parts, label_dropout=0.0), labels),
        (prior, None),
    ):
        with pytest.raises(ParamsError, match="sampling.guidance: must be 1"):
            other.sample(given, uniforms, none)


@every_case
def test_label_dropout_shows_no_class_to_every_part_alike(kind, parts, monkeypatch):
    prior = build(kind, parts, label_dropout=0.5)
    seen = []
    for module in prior.modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == NUM_CLASSES + 1:
            module.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    torch.manual_seed(1)
    prior.loss(torch.zeros(400, 1, prior.spec.tokens, dtype=torch.int64), torch.zeros(400).long())
    assert all(torch.equal(classes, seen[0]) for classes in seen)
    # Five standard errors of 400 coins.
    assert (seen[0] == NUM_CLASSES).double().mean().item() == pytest.approx(0.5, abs=0.125)


@pytest.mark.parametrize(("kind", "parts"), CASES[:2], ids=str)
def test_it_learns_a_distribution_it_is_shown(kind, parts):
    prior = build(kind, parts, num_codes=3, label_dropout=0.0).train()
    # Class 0 is always one row of codes; class 1 is one of two that differ in the last code only.
    rows = torch.randint(
        0, 3, (4, 1, prior.spec.tokens), generator=torch.Generator().manual_seed(2)
    )
    rows[1], rows[3] = rows[0], rows[2]
    rows[3, 0, -1] = (rows[2, 0, -1] + 1) % 3
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        prior.loss(rows, labels).backward()
        optimizer.step()
    nats = -prior.eval().log_prob(rows, labels).detach()
    torch.testing.assert_close(nats, torch.tensor([0.0, 0.0, 0.693, 0.693]), atol=0.15, rtol=0)


def test_codes_that_do_not_come_in_such_grids_are_refused():
    for kind, parts, message in (
        ("two_level", (), "stores one grid"),
        ("two_level", ((2, 3), (3, 6)), "stores 2x3 then 3x6"),
        ("two_level", ((2, 3), (4, 6), (8, 12)), "stores 2x3 then 4x6 then 8x12"),
        ("depth_transformer", (), "stores one grid"),
        ("depth_transformer", ((2, 3), (4, 6)), "stores 2x3 then 4x6"),
    ):
        options = validate(
            PriorOptions.of_kind(kind), {"kind": kind, **OPTIONS[kind]}, source="test"
        )
        with pytest.raises(ParamsError, match=f"prior.kind: '{kind}' models .* {message}"):
            options.check_latents(spec_of(parts) if parts else LatentSpec("codes", 2, 3, 5))


def test_width_must_be_a_multiple_of_the_heads():
    for kind, values in OPTIONS.items():
        with pytest.raises(ParamsError, match="must be a multiple of num_heads; got 12 and 5"):
            validate(
                PriorOptions.of_kind(kind), {"kind": kind, **values, "num_heads": 5}, source="test"
            )


def test_the_order_of_a_row_is_coarse_then_fine():
    prior = build("two_level", LEVELS, num_codes=5)
    codes = prior.sample(None, torch.rand(3, *prior.noise_shape), MODEL)
    grids = grids_of_row(codes, LEVELS)
    assert [tuple(grid.shape) for grid in grids] == [(3, 1, 2), (3, 2, 2)]
    assert torch.equal(row_of_grids(grids), codes)
