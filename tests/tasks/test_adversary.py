"""The adversary's losses at known logits, its weight in closed form, and whose weights it moves."""

import math

import pytest
import torch
from torch import nn

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.errors import ParamsError
from stages.core.sections import parse_params, validate
from stages.core.shapes import ImageShape
from stages.tasks.adversary import Adversary, AdversaryOptions, adaptive_weight, last_weights
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.likelihoods.examples import EXAMPLES as LIKELIHOODS
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 8, 12)
CONV = {
    "kind": "conv",
    "widths": [8, 10],
    "blocks": 1,
    "decoder_widths": [],
    "decoder_blocks": 1,
    "decoder_kernel": 3,
    "upsampling": "nearest",
}
CPU = torch.device("cpu")
OPTIONS = {
    "weight": 0.5,
    "start_step": 2,
    "adaptive": False,
    "loss": "hinge",
    "width": 8,
    "layers": 1,
    "learning_rate": 1e-2,
    "betas": [0.5, 0.9],
    "lecam_weight": 0.0,
    "lecam_decay": 0.75,
}


class Brightness(nn.Module):
    """One logit per image: its mean, times a number that is learned."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.gain * images.mean(dim=(1, 2, 3), keepdim=True)


def adversary(**changes):
    options = validate(AdversaryOptions, OPTIONS | changes, source="test")
    return Adversary(options, IMAGE, seed=4, device=CPU)


def brightness(**changes):
    found = adversary(**changes)
    found.network = Brightness()
    found.optimizer = torch.optim.Adam(found.network.parameters(), lr=1e-2)
    return found


def flat(intensity, batch=2):
    return torch.full((batch, *IMAGE), intensity)


def autoencoder(likelihood=LIKELIHOODS[0], upsampling="nearest"):
    sections = {
        "autoencoder": {"kind": "flat"},
        "backbone": CONV | {"upsampling": upsampling},
        "bottleneck": BOTTLENECKS[0],
        "likelihood": likelihood,
        "objective": ELBO,
    }
    torch.manual_seed(0)
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    return build_first_stage(params, IMAGE)


def some_images(batch=4, seed=3):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *IMAGE, generator=draw) * 2 - 1


def softplus(value):
    return math.log1p(math.exp(value))


def test_the_losses_at_known_logits():
    real, rebuilt = 0.5, -0.25
    _, figures = brightness().loss(flat(real), flat(rebuilt), torch.ones(()), 2)
    assert figures["discriminator"].item() == pytest.approx(0.5 * (1 - real + 1 + rebuilt))
    assert figures["logits_real"].item() == pytest.approx(real)
    assert figures["logits_rebuilt"].item() == pytest.approx(rebuilt)
    found = brightness(loss="non_saturating")
    added, figures = found.loss(flat(real), flat(rebuilt), torch.ones(()), 2)
    expected = 0.5 * (softplus(-real) + softplus(rebuilt))
    assert figures["discriminator"].item() == pytest.approx(expected)
    # Adam's first step is the learning rate, and the autoencoder faces who has learned.
    assert found.network.gain.item() == pytest.approx(1.01)
    assert figures["fooling"].item() == pytest.approx(softplus(-1.01 * rebuilt))
    assert added.item() == pytest.approx(0.5 * softplus(-1.01 * rebuilt))


def test_verdicts_beyond_the_margin_are_not_pressed_further():
    found = brightness()
    found.loss(flat(1.5), flat(-1.25), torch.ones(()), 2)
    assert found.network.gain.item() == 1


def test_lecam_pulls_logits_to_the_usual_ones_of_the_other_side():
    real, rebuilt = 1.5, -1.25
    found = brightness(lecam_weight=2.0)
    found.usual_logits.copy_(torch.tensor([0.25, -0.5]))
    _, figures = found.loss(flat(real), flat(rebuilt), torch.ones(()), 2)
    expected = 2 * ((real + 0.5) ** 2 + (rebuilt - 0.25) ** 2)
    assert figures["discriminator"].item() == pytest.approx(expected)
    torch.testing.assert_close(
        found.usual_logits,
        torch.tensor([0.75 * 0.25 + 0.25 * real, 0.75 * -0.5 + 0.25 * rebuilt]),
    )


def test_there_is_no_adversary_before_its_start():
    found = adversary()
    before = [parameter.clone() for parameter in found.network.parameters()]
    for step, moved in ((0, False), (1, False), (2, True)):
        images = some_images()
        added, figures = found.loss(images, -images, torch.ones(()), step)
        assert (added != 0) == moved and bool(figures) == moved
        pairs = zip(before, found.network.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs) == moved


def test_the_adaptive_weight_is_the_ratio_of_the_pulls():
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    output = weights @ torch.linspace(-1, 2, 5)
    found = adaptive_weight(3 * output.sum(), 0.5 * output[0], weights)
    assert found.item() == pytest.approx(3 * 2 / 0.5, rel=1e-5) and not found.requires_grad
    assert adaptive_weight(output.sum(), 0 * output.sum(), weights).item() == 1e4
    assert adaptive_weight(0 * output.sum(), output.sum(), weights).item() == 0


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize(
    ("upsampling", "dtype"), [("nearest", torch.bfloat16), ("transposed", torch.float32)]
)
def test_the_last_weights_are_the_decoders_last(likelihood, upsampling, dtype):
    model = autoencoder(likelihood, upsampling)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        result = model(some_images(), generator=torch.Generator().manual_seed(0))
    last = model.backbone.decoder.layers[-1].weight
    if likelihood.get("layers"):
        # A likelihood with a network of its own has the last word.
        last = model.likelihood.network.out.weight
    assert last_weights(result.reconstructions) is last


def test_a_compiled_graph_is_refused_with_the_setting():
    class CompiledFunction(torch.autograd.Function):
        """Named as torch.compile names its one operation."""

        @staticmethod
        def forward(ctx, weights, images):
            return images * weights.sum()

        @staticmethod
        def backward(ctx, gradient):
            return gradient, gradient

    output = CompiledFunction.apply(torch.ones(2, 3, requires_grad=True), some_images()) + 1
    with pytest.raises(ParamsError, match=r"adversary\.adaptive: .* train_autoencoder\.compile"):
        last_weights(output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adaptive_adversary_of_weight_1_pulls_as_hard_as_the_reconstruction(dtype):
    model, found, images = autoencoder(), adversary(weight=1.0, adaptive=True), some_images()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        result = model(images)
        rec = result.distortion.mean() / IMAGE.dims
        added, figures = found.loss(images, result.reconstructions, rec, 2)
    last = model.backbone.decoder.layers[-1].weight
    pulls = [torch.autograd.grad(t, last, retain_graph=True)[0].norm().item() for t in (rec, added)]
    assert pulls[1] == pytest.approx(pulls[0], rel=1e-2)
    assert figures["adversary_weight"] > 0


def test_autoencoder_and_discriminator_move_their_own_weights_only():
    model, found, images = autoencoder(), adversary(adaptive=True), some_images()
    result = model(images)
    rec = result.distortion.mean() / IMAGE.dims
    added, _ = found.loss(images, result.reconstructions, rec, 2)
    assert all(parameter.grad is None for parameter in model.parameters())
    own = [parameter.grad.clone() for parameter in found.network.parameters()]
    added.backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("likelihood"):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for gradient, parameter in zip(own, found.network.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad) and not parameter.requires_grad


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_it_learns_to_tell_noise_from_stripes(loss):
    found = adversary(loss=loss)
    stripes, losses = torch.linspace(-1, 1, IMAGE.width).expand(4, *IMAGE), []
    for step in range(2, 32):
        _, figures = found.loss(some_images(seed=step), stripes, torch.ones(()), step)
        losses.append(figures["discriminator"].item())
    assert losses[-1] < 0.3 * losses[0]
    assert figures["logits_real"] > 0.5 and figures["logits_rebuilt"] < -0.5


def test_after_lower_precision_the_autoencoder_faces_the_new_weights():
    found, images = adversary(), some_images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, figures = found.loss(images, -images, torch.ones(()), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = -found.network(-images).float().mean()
    assert torch.equal(figures["fooling"], again)
    assert all(parameter.dtype == torch.float32 for parameter in found.network.parameters())


def test_its_state_survives_the_disk_bit_for_bit(tmp_path):
    whole = adversary(lecam_weight=0.1)
    for step in range(2, 8):
        whole.loss(some_images(seed=step), some_images(seed=-step), torch.ones(()), step)
        if step == 4:
            torch.save(whole.state(), tmp_path / "state.pt")
    # Weights of another start, to be replaced.
    options = validate(AdversaryOptions, OPTIONS | {"lecam_weight": 0.1}, source="test")
    resumed = Adversary(options, IMAGE, seed=9, device=CPU)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(5, 8):
        resumed.loss(some_images(seed=step), some_images(seed=-step), torch.ones(()), step)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    assert torch.equal(whole.usual_logits, resumed.usual_logits)


def test_its_first_weights_depend_on_the_seed_only():
    first = adversary().network.state_dict()
    torch.manual_seed(123)
    again = adversary().network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_options_are_checked():
    with pytest.raises(ParamsError, match=r"width: .*multiple of 8"):
        adversary(width=12)
    with pytest.raises(ParamsError, match=r"betas: betas must lie in \[0, 1\)"):
        adversary(betas=[0.5, 1.0])
    with pytest.raises(ParamsError, match=r"adversary\.layers: 2 halvings"):
        adversary(layers=2)
