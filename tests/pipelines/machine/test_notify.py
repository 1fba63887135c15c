"""Somebody is told, by a POST or by a command, and cannot harm whoever tells."""

import json
import shlex
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipelines.machine.notify import notify
from tests.pipelines.trivial_line import free_port

LINKS = {"prefect": "http://127.0.0.1:4200/x", "mlflow": None}
MESSAGE = {"event": "failed", "message": "run a: ü", "links": {"prefect": LINKS["prefect"]}}


@pytest.fixture
def received() -> Iterator[tuple[str, list[Any]]]:
    """A receiver's URL and what it has received."""
    found: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path.startswith("/broken") else 204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", found
    server.shutdown()
    thread.join()
    server.server_close()


def told(monkeypatch: pytest.MonkeyPatch, receiver: str) -> list[str]:
    monkeypatch.setenv("LATENTLINE_NOTIFY", receiver)
    warnings: list[str] = []
    notify("failed", "run a: ü", LINKS, warnings.append)
    return warnings


def test_a_receiver_gets_json(
    monkeypatch: pytest.MonkeyPatch, received: tuple[str, list[Any]]
) -> None:
    assert told(monkeypatch, f"{received[0]}/hook") == []
    assert received[1] == [MESSAGE]


def test_a_command_gets_it_on_stdin_without_a_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a file; $HOME"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    assert told(monkeypatch, shlex.join([sys.executable, "-c", code, str(file)])) == []
    assert json.loads(file.read_text()) == MESSAGE


def test_who_cannot_be_told_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, received: tuple[str, list[Any]]
) -> None:
    for receiver in (
        f"http://127.0.0.1:{free_port()}",
        f"{received[0]}/broken",
        "/no/such/program",
        f"{sys.executable} -c 1/0",
        'unclosed "quote',
    ):
        (warning,) = told(monkeypatch, receiver)
        assert warning.startswith("LATENTLINE_NOTIFY: nobody was told of `failed`: ")


def test_without_a_receiver_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, " ") == []


@pytest.mark.parametrize(
    "receiver",
    [
        "{python} -c 'raise SystemExit(3)' SECRET",
        "/no/such/SECRET",
        "http://127.0.0.1:1/hook?token=SECRET",
        "{url}/broken?token=SECRET",
        "http://SECRET:SECRET@[/",
    ],
)
def test_a_warning_names_no_token(
    received: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, receiver: str
) -> None:
    url, _ = received
    [warning] = told(monkeypatch, receiver.format(python=sys.executable, url=url))
    assert "nobody was told" in warning and "SECRET" not in warning
