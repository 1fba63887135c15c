"""Two processes with half a batch each do what one does with the whole."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from stages.nn.processes import from_first_process, mean_over_processes, sum_over_processes


def test_alone_nothing_happens():
    value = torch.tensor([1.0, 2.0])
    for function in (sum_over_processes, mean_over_processes, from_first_process):
        assert torch.equal(function(value.clone()), value)


def _work(rank: int, store: str, results) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    value = torch.tensor([1.0, 2.0]) * (rank + 1)
    results[rank] = [
        function(value.clone()).tolist()
        for function in (sum_over_processes, mean_over_processes, from_first_process)
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
        expected = [[3.0, 6.0], [1.5, 3.0], [1.0, 2.0]]
        assert results[0] == results[1] == expected
