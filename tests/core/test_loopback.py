"""This machine's own addresses are asked directly, whatever proxy the environment names."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.core.loopback import spare_loopback
from tests.conftest import PROJECT

ASK = """
import sys
import stages.core.store
import httpx, requests
from pipelines.machine.servers import answers
url = sys.argv[1]
assert answers(url)
assert httpx.get(url).status_code == requests.get(url).status_code == 200
"""


class Well(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_client_of_ours_asks_a_server_here_itself(host):
    with ThreadingHTTPServer(("127.0.0.1", 0), Well) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
        done = subprocess.run(
            [sys.executable, "-c", ASK, f"http://{host}:{server.server_port}/"],
            cwd=PROJECT,
            env=os.environ | nowhere | {"no_proxy": "store.example"},
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "spared"),
    [
        ({}, ["127.0.0.1,localhost"] * 2),
        ({"NO_PROXY": "a, localhost"}, ["a, localhost,127.0.0.1"] * 2),
        ({"no_proxy": "a", "NO_PROXY": "b"}, ["a,127.0.0.1,localhost", "b,127.0.0.1,localhost"]),
        ({"no_proxy": "*"}, ["*", None]),
    ],
)
def test_what_the_user_spares_stays(given, spared):
    environment = {"https_proxy": "http://proxy.example"} | given
    spare_loopback(environment)
    assert [environment.get(name) for name in ("no_proxy", "NO_PROXY")] == spared
    once = dict(environment)
    spare_loopback(environment)
    assert environment == once


def test_without_a_proxy_nothing_is_set():
    environment = {"PATH": "/bin", "no_proxy": "a"}
    spare_loopback(environment)
    assert environment == {"PATH": "/bin", "no_proxy": "a"}
