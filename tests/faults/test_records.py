"""MLflow down, slow, answering with errors, and back; stages killed that have a record.

The stage is never held up by more than the time it waits at its end, its bytes are the same, its
history is delivered by the next stage that reaches the server, and no run stays open.
"""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.machine.servers import mlflow_server, running
from tests.faults.conftest import Undisturbed
from tests.faults.place import Place
from tests.faults.table import case
from tests.pipelines.trivial_line import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STAGE = "prepare"
TRACKED = {"LATENTLINE_TRACKING": "on"}


@contextmanager
def broken_server(port: int, how: str) -> Iterator[list[str]]:
    """A server that answers every request with an error, or not before its end; what was asked."""
    asked: list[str] = []
    over = threading.Event()

    class Broken(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            if how == "slow":
                over.wait()
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Broken)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def run_stage(place: Place) -> float:
    """Seconds that one more run of the stage takes through DVC."""
    place.forget(STAGE)
    begun = time.monotonic()
    assert place.call("dvc", "repro", "--single-item", STAGE) == 0, place.said
    return time.monotonic() - begun


@case(
    "MLflow's server down, then answering 500, then not answering, then back",
    "the stage ends well each time; its record is kept, and delivered once the server is back",
)
def test_mlflow_server(line: Place, undisturbed: Undisturbed, result) -> None:
    port = free_port()
    peace = run_stage(line)
    line.environment |= {**TRACKED, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    down = run_stage(line)
    assert "it is kept" in line.said
    times = {"down": down}
    for how in ("500", "slow"):
        with broken_server(port, how) as asked:
            times[how] = run_stage(line)
            assert asked and "it is kept" in line.said
    server = mlflow_server(line.path, port)
    with running(line.path, server):
        run_stage(line)
        assert [state for _, state in line.run_states()] == ["FINISHED"] * 4
        assert not list((line.path / ".work/tracking").glob("*/journal.jsonl"))
        elsewhere = urllib.request.Request(f"{server.url}/", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(elsewhere, timeout=30)
        assert refused.value.code == 403
    line.environment["LATENTLINE_TRACKING"] = "off"
    line.require_whole(undisturbed.hashes)
    took = ", ".join(f"{how} {seconds:.0f} s" for how, seconds in times.items())
    result(f"equal bytes; the stage took {peace:.0f} s without a record; {took}")


@pytest.mark.parametrize("group", [False, True], ids=["stage", "group"])
@case("kill -9 of a stage that has a record, the clock set back a day, and again", "one run")
def test_a_recorded_stage(line: Place, undisturbed: Undisturbed, group: bool, result) -> None:
    took = undisturbed.took[f"stages.{STAGE}"]
    line.environment |= TRACKED
    line.forget(STAGE)
    order = {"victim": f"stages.{STAGE}", "event": int(0.7 * took["events"]), "group": group}
    assert line.call("dvc", "repro", "--single-item", STAGE, fault=order) != 0
    assert line.fired.exists()
    assert line.call("dvc", "repro", fault={"shift": -86400.0}) == 0, line.said
    line.require_whole(undisturbed.hashes)
    assert [state for _, state in line.run_states()] == ["FINISHED"]
    result(f"{'its whole group' if group else 'it alone'}: one run, FINISHED; equal bytes")
