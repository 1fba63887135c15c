"""Two hosts, as far as the network can tell: two network namespaces joined by a virtual cable."""

import os
import shutil
import subprocess
import sys
import uuid

import pytest

from tests.training.rank_program import train
from tests.training.test_ranks import assert_close, finish, losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PORT = 4440
ADDRESSES = ("10.77.44.1", "10.77.44.2")


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"network namespaces are not permitted here: ip {' '.join(words)}: "
            f"{done.stderr.strip()}"
        )


@pytest.fixture
def hosts():
    """Names of two namespaces, each with its end of the cable and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("needs the program ip (iproute2)")
    tag = uuid.uuid4().hex[:6]
    names = [f"line{tag}{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ends = [f"v{tag}{end}" for end in "ab"]
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_two_hosts_do_what_one_process_does(hosts, tmp_path, monkeypatch, project):
    """Two processes on each of two hosts share four pieces; rank 0 alone writes."""
    monkeypatch.chdir(project)
    folder = tmp_path / "hosts"
    folder.mkdir()
    environment = {name: v for name, v in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT), "HOSTS": "2"}
    program = [sys.executable, "-m", "tests.training.rank_program", str(folder), "4", "ema_vq"]
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, *program],
            env=environment | {"NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, host in enumerate(hosts)
    ]
    first, second = [finish(process) for process in started]
    assert "trained ema_vq" in first and "trained" not in second
    (tmp_path / "one").mkdir()
    train("ema_vq", tmp_path / "one")
    assert_close(losses(tmp_path / "one", "ema_vq"), losses(folder, "ema_vq"), "two hosts")
