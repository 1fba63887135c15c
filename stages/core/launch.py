"""Start the processes of a stage with torchrun's own launcher, and speak for all of them.

    python -m stages.train_prior        becomes four processes with compute.processes: 4

On one host nothing else is needed. With `compute.hosts` above 1 the same command is given on every
host, each told where to meet by the variables that torchrun and its schedulers use:

    MASTER_ADDR, MASTER_PORT            of the first host
    NODE_RANK                           0 on the first, then 1, 2, ...
    GLOO_SOCKET_IFNAME                  which network device to use; else the one that leads there

(`torchrun --nnodes ... -m stages.train_prior` works as well.) A signal to the launcher reaches
every process; the first failure of any ends all. A user's mistake is told once, whichever rank met
it.
"""

import json
import logging
import os
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from stages.core.errors import EXIT_INTERRUPTED, Interrupted, LatentlineError, ParamsError
from stages.core.ranks import LAUNCHER, ComputeOptions

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

__all__ = ["launch", "launched_here", "leave_reason", "node_rank"]

# After a signal: time for the step at hand and a checkpoint. Then processes are killed.
STOPPING_SECONDS = 300
MEETING_SECONDS = 900


def launched_here() -> bool:
    """Whether this process was started by `launch`, which then speaks for it."""
    return LAUNCHER in os.environ


def node_rank(compute: ComputeOptions) -> int:
    """Which of the hosts this is; 0 where there is but one.

    Raises:
        ParamsError: If there are several and the environment does not say.
    """
    if compute.hosts == 1:
        return 0
    missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if n not in os.environ]
    if missing:
        raise ParamsError(
            f"compute.hosts: {compute.hosts} hosts must know where to meet: set MASTER_ADDR and "
            f"MASTER_PORT to those of the first host and NODE_RANK to 0, 1, ... on each; "
            f"{', '.join(missing)} not set"
        )
    return int(os.environ["NODE_RANK"])


def launch(stage: str, compute: ComputeOptions, module: str, *arguments: str) -> None:
    """Run a stage in as many processes as the parameters ask for; returns when all are done.

    Args:
        stage: Its name.
        compute: How many processes, and on how many hosts.
        module: The program, as `python -m` takes it.
        *arguments: Its arguments.

    Raises:
        LatentlineError: What a process was told was a user's mistake.
        Interrupted: If processes stopped on request or were lost; run again to go on.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import DefaultLogsSpecs, LaunchConfig, elastic_launch

    # The launcher reports failures below, in words.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    rank = node_rank(compute)
    several = compute.hosts > 1
    address = os.environ["MASTER_ADDR"] if several else "127.0.0.1"
    port = os.environ["MASTER_PORT"] if several else "0"
    _choose_network_device(address, int(port) or 1)
    # Else every process would take all cores, and wait for the others' turns.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // compute.processes)))
    with tempfile.TemporaryDirectory(prefix="latentline-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=compute.hosts,
            max_nodes=compute.hosts,
            nproc_per_node=compute.processes,
            run_id=f"latentline-{stage}",
            rdzv_backend="static" if several else "c10d",
            rdzv_endpoint=f"{address}:{port}",
            local_addr=None if several else address,
            rdzv_configs={"rank": rank, "timeout": MEETING_SECONDS} if several else {},
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=STOPPING_SECONDS,
        )
        os.environ[LAUNCHER] = str(os.getpid())
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except SignalException:
            raise Interrupted(f"{stage}: stopped on request; run again to go on") from None
        except ChildFailedError as error:
            _raise_reason(stage, error)
        finally:
            # This process speaks for the others, and nobody for it.
            del os.environ[LAUNCHER]


def _choose_network_device(address: str, port: int) -> None:
    """Tell gloo the device that leads to the first host; by itself it asks for the host's name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent; the kernel only looks up the way.
        probe.connect((address, port))
        own = probe.getsockname()[0]
    for device, addresses in psutil.net_if_addrs().items():
        if any(entry.address == own for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", device)
            return


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_reason(error: BaseException) -> None:
    """Leave word, where the launcher finds it, of why this process ends."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    told = isinstance(error, LatentlineError)
    reason = {
        "message": str(error),
        "extraInfo": {
            "py_callstack": "" if told else traceback.format_exc(),
            "timestamp": str(int(time.time())),
            "mistake": told,
        },
    }
    Path(path).write_text(json.dumps({"message": reason}), encoding="utf-8")


def _raise_reason(stage: str, error: "ChildFailedError") -> None:
    """Say what ended the processes; of several failures, those that only followed say least."""
    failures = error.failures
    if any(failure.exitcode == EXIT_INTERRUPTED for failure in failures.values()):
        raise Interrupted(f"{stage}: stopped on request; run again to go on") from None
    reasons = {rank: _reason(failure.error_file_data) for rank, failure in failures.items()}
    for reason in reasons.values():
        if reason.get("extraInfo", {}).get("mistake"):
            raise LatentlineError(reason["message"]) from None
    for rank, failure in failures.items():
        if failure.exitcode < 0:
            raise Interrupted(
                f"{stage}: rank {rank} was lost ({failure.signal_name()}), and the others stopped; "
                "run again to go on from what is saved"
            ) from None
    rank, failure = error.get_first_failure()
    trace = reasons[rank].get("extraInfo", {}).get("py_callstack", "")
    print(f"rank {rank}:\n{trace}", file=sys.stderr)
    raise RuntimeError(f"{stage}: rank {rank} failed with exit status {failure.exitcode}")


def _reason(error_file: dict[str, Any]) -> dict[str, Any]:
    reason = error_file.get("message")
    return reason if isinstance(reason, dict) else {}
