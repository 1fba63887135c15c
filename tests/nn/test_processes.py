"""Two processes with half a batch each do what one does with the whole."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from stages.nn.processes import (
    StepSums,
    from_first_process,
    mean_over_pieces,
    sum_over_processes,
)


def test_alone_nothing_happens():
    value = torch.tensor([1.0, 2.0])
    for function in (sum_over_processes, from_first_process):
        assert torch.equal(function(value.clone()), value)
    assert torch.equal(mean_over_pieces([value, 3 * value]), 2 * value)


def test_sums_are_taken_once():
    sums = StepSums()
    assert sums.take() is None
    for piece in (1, 2):
        sums.add(torch.tensor(piece), torch.ones(2))
    total, ones = sums.take()
    assert total == 3 and torch.equal(ones, 2 * torch.ones(2))
    assert sums.take() is None


def _work(rank: int, store: str, results) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    value = torch.tensor([1.0, 2.0]) * (rank + 1)
    sums = StepSums()
    # Three pieces in two processes.
    own = [value] * (2 - rank)
    for piece in own:
        sums.add(piece.clone())
    results[rank] = [
        sum_over_processes(value.clone()).tolist(),
        mean_over_pieces(own).tolist(),
        from_first_process(value.clone()).tolist(),
        sums.take()[0].tolist(),
    ]
    dist.destroy_process_group()


def test_two_processes_agree(tmp_path):
    context = mp.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(target=_work, args=(rank, str(tmp_path / "store"), results))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        mean = torch.tensor([4.0, 8.0]).div(3).tolist()
        expected = [[3.0, 6.0], mean, [1.0, 2.0], [4.0, 8.0]]
        assert results[0] == results[1] == expected
