"""A training on a GPU goes on exactly, is not waited for, and refuses what is not finite."""

import pytest
import torch

from stages.core.errors import DivergenceError
from stages.nn.softmax_attention import attend
from tests.gpu.the_gpu import gpu, needs_gpu
from tests.gpu.training_laws import LAWS, training
from tests.nn.lpips_files import write_lpips
from tests.programs import run_module
from tests.tasks.test_appearance import appearance
from tests.tasks.test_tasks import autoencoder_task

pytestmark = needs_gpu
GAUSSIAN = {"kind": "gaussian", "layout": "spatial", "channels": 4}


@pytest.mark.parametrize("law", LAWS)
def test_law(law, project):
    run_module(project, "tests.gpu.training_laws", law)


def test_a_step_that_is_not_finite_is_not_taken_and_named(tmp_path):
    task = autoencoder_task(GAUSSIAN)
    one = training(task, tmp_path, gpu())
    for _ in range(3):
        one._train_step()
    before = [p.detach().clone() for p in task.module.parameters()]
    loss = task.loss
    task.loss = lambda *given: (loss(*given)[0] * torch.nan, {})
    one._train_step()
    for mine, then in zip(task.module.parameters(), before, strict=True):
        assert torch.equal(mine, then)
    with pytest.raises(DivergenceError, match="diverged at step 3"):
        one._checkpoint()


def test_what_looks_at_reconstructions_trains_the_same_every_time(tmp_path, monkeypatch):
    write_lpips(tmp_path / "weights", monkeypatch)
    histories = []
    for name in ("one", "two"):
        task = autoencoder_task(GAUSSIAN)
        task.appearance = appearance(tmp_path / "weights", 0.3, gpu(), adaptive=True)
        one = training(task, tmp_path / name, gpu())
        for _ in range(4):
            one._train_step()
        histories.append([p.detach().cpu() for p in task.module.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*histories, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_attention_are_the_same_every_time(dtype):
    given = [torch.randn(4, 8, 512, 64, device=gpu(), dtype=dtype) for _ in range(3)]
    found = []
    for _ in range(5):
        leaves = [one.clone().requires_grad_() for one in given]
        attend(*leaves, causal=True).float().square().sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for again in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], again, strict=True))
