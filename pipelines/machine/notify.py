"""Tell somebody: when a run has failed or crashed, when latents collapse, when a line is promoted.

LATENTLINE_NOTIFY names whom to tell, and is all there is to set:

    http://127.0.0.1:9000/hook      a POST with the message as JSON
    notify-send --app Latentline    a command, run without a shell, with the same JSON on stdin

    {"event": "failed", "message": "...", "links": {"prefect": "http://...", "mlflow": "http://..."}}

`event` is `failed`, `crashed`, `collapse` or `promoted`. Whoever is told cannot harm the run: what
goes wrong here is one warning.
"""

import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["notify", "tell_of_crash", "tell_of_failure"]

VARIABLE = "LATENTLINE_NOTIFY"
PATIENCE_SECONDS = 10.0


def notify(
    event: str, message: str, links: Mapping[str, str | None], warn: Callable[[str], None]
) -> None:
    """Send one message, if there is somebody to send it to.

    Args:
        event: What happened, one word.
        message: The same for people.
        links: Where to look; those that are None are left out.
        warn: Told when it could not be sent.
    """
    receiver = os.environ.get(VARIABLE, "").strip()
    if not receiver:
        return
    known = {name: link for name, link in links.items() if link}
    body = json.dumps({"event": event, "message": message, "links": known}).encode()
    try:
        if receiver.startswith(("http://", "https://")):
            _post(receiver, body)
        else:
            _pipe(shlex.split(receiver), body)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        warn(f"{VARIABLE}: nobody was told of `{event}`: {_why(error)}")


def _why(error: Exception) -> str:
    """Without the address or the command: tokens stand in them."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"the command ended with exit status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the command took longer than {error.timeout:g} s"
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    said = error.strerror if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__} {said}".strip()


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    # No proxy: most receivers are on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_SECONDS):
        pass


def _pipe(command: list[str], body: bytes) -> None:
    subprocess.run(
        command,
        input=body,
        check=True,
        timeout=PATIENCE_SECONDS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def tell_of_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook `on_failure`; it calls hooks with these names."""
    _tell("failed", flow, flow_run, state)


def tell_of_crash(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook `on_crashed`."""
    _tell("crashed", flow, flow_run, state)


def _tell(event: str, flow: Any, flow_run: Any, state: Any) -> None:
    # Here, so that who only wants to send something needs no Prefect.
    from prefect.logging.loggers import flow_run_logger

    from pipelines.records.run_page import address_of_run

    link = address_of_run(flow_run.id)
    message = f"{flow.name}, run {flow_run.name}: {state.message}"
    notify(event, message, {"prefect": link}, flow_run_logger(flow_run, flow).warning)
