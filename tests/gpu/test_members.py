"""Members give on a GPU what they give on a CPU, within rounding."""

import copy

import pytest
import torch

from stages.autoencoders.base import Reconstructed
from stages.core.intensities import from_pixels
from tests.bottlenecks.examples import EXAMPLES
from tests.gpu.the_gpu import CPU, gpu, needs_gpu
from tests.priors.test_contract import CASES, MODEL, build, labels_for, random_latents
from tests.tasks.test_tasks import autoencoder_task

pytestmark = needs_gpu
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
EXACT = {"enabled": True, "deterministic": True, "allow_tf32": False, "benchmark": False}


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_priors(kind, stored):
    prior, latents = build(kind, stored), random_latents(stored)
    uniforms, labels = torch.rand(len(latents), *prior.noise_shape), labels_for(prior)
    results = {}
    for device in (CPU, gpu()):
        there = copy.deepcopy(prior).to(device)
        given = None if labels is None else labels.to(device)
        with torch.inference_mode():
            nats = there.log_prob(latents.to(device), given)
            drawn = there.sample(given, uniforms.to(device), MODEL)
        results[device.type] = nats.cpu(), drawn.cpu()
    torch.testing.assert_close(*(nats for nats, _ in results.values()), **CLOSE)
    torch.testing.assert_close(*(drawn for _, drawn in results.values()), **CLOSE)


@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_gradients_of_priors_are_the_same_every_time(kind, stored):
    device = gpu()
    prior, latents = build(kind, stored).to(device), random_latents(stored).to(device)
    if not list(prior.parameters()):
        return
    labels = labels_for(prior)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        prior.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = prior.loss(latents, None if labels is None else labels.to(device))
        loss.backward()
        found.append([p.grad.clone() for p in prior.parameters() if p.grad is not None])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def loss_on(task, device):
    module = copy.deepcopy(task.module).to(device).train()
    images = from_pixels(torch.from_numpy(task.train.images[:6])).to(device)
    # Draws of a GPU's generator are others: only what is not drawn can be compared.
    module.eval()
    with torch.backends.cudnn.flags(**EXACT):
        result: Reconstructed = module(images, None, torch.Generator(device).manual_seed(0))
    result.loss.backward()
    return result, [p.grad.cpu() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("values", EXAMPLES, ids=str)
def test_first_stages(values):
    task = autoencoder_task(values)
    with torch.random.fork_rng():
        one, two = loss_on(task, CPU), loss_on(task, gpu())
    assert len(one[1]) == len(two[1])
    assert all(g.isfinite().all() for g in two[1])
    if values["kind"] not in ("identity", "vq", "ema_vq", "cosine_vq", "residual_vq", "fsq"):
        return
    torch.testing.assert_close(one[0].loss, two[0].loss.cpu(), **CLOSE)
    for mine, other in zip(one[1], two[1], strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
