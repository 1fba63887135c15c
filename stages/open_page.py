"""A web page of the line as it stands: sample, complete, reconstruct, interpolate, look inside.

    python -m stages.open_page [--port 8501]

Listens on the loopback interface only, takes pictures of at most 5 MB, reports nothing to anybody
and loads nothing from elsewhere. Needs the extra `page` (Streamlit). Ctrl-C ends it.
"""

import argparse
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import stages.core.quiet  # noqa: F401
from stages.core.errors import ParamsError
from stages.core.programs import exit_status
from stages.sampling.request import require_trained

__all__ = ["main"]

LOOPBACK = "127.0.0.1"
APP = Path(__file__).parent / "page" / "app.py"
SETTINGS = {
    "server.address": LOOPBACK,
    "server.headless": "true",
    "server.maxUploadSize": "5",
    # Nothing the page sends or gets is larger than a picture and its twin.
    "server.maxMessageSize": "20",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableStaticServing": "false",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": LOOPBACK,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "global.developmentMode": "false",
}
HOSTS = (LOOPBACK, "localhost")
"""Names under which it may be asked for: a page elsewhere whose name leads here is refused."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines page", description="Open a web page of the trained line."
    )
    parser.add_argument("--port", type=int, default=8501, help="on the loopback interface")
    return parser


def _serve(options: argparse.Namespace) -> NoReturn:
    if importlib.util.find_spec("streamlit") is None:
        raise ParamsError(
            "the page needs Streamlit, which is not installed; install the extra: "
            "python -m pip install -c constraints.txt -e '.[page]'"
        )
    require_trained()
    _require_free(options.port)
    settings = {**SETTINGS, "server.port": str(options.port)}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    words += [word for host in HOSTS for word in ("--server.allowedHosts", host)]
    # What the user has set for other pages does not hold for this one.
    others = {name for name in os.environ if name.startswith("STREAMLIT_")}
    environment = {name: value for name, value in os.environ.items() if name not in others}
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *words]
    print(f"the page: http://{LOOPBACK}:{options.port} (Ctrl-C ends it)", flush=True)
    # In this process's place: whoever ends it ends the page.
    os.execve(sys.executable, command, {**environment, "PYTHONPATH": path})


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):
            raise ParamsError(
                f"--port: port {port} of this machine is taken or is none; stop what uses it or "
                "choose another"
            ) from None


if __name__ == "__main__":
    sys.exit(main())
