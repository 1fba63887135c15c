"""Several processes of one test that have met, as torchrun would have started them.

They are forked, so that nothing is imported again; gloo connects them on the loopback device. With
a GPU about they are not: a process that has computed gradients there cannot be forked.
"""

import multiprocessing
import os
import socket
import traceback

import torch

from stages.core.ranks import ComputeOptions, joined


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _enter(rank, count, port, work, arguments, results):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    try:
        with joined(ComputeOptions(processes=count, hosts=1, prior_strategy="ddp"), "cpu"):
            results[rank] = work(*arguments)
    except BaseException:
        results[rank] = traceback.format_exc()
        raise
    finally:
        # No handler of the test's process runs again in its copy.
        os._exit(0)


def in_processes(count, work, *arguments):
    """What `work(*arguments)` gives in each of so many processes, by rank; text of an error."""
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    port = _free_port()
    with context.Manager() as manager:
        results = manager.dict()
        started = [
            context.Process(target=_enter, args=(rank, count, port, work, arguments, results))
            for rank in range(count)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(timeout=1200)
            assert process.exitcode is not None, "a process hangs"
        return [results.get(rank, "lost") for rank in range(count)]
