"""The line that the page shows, opened once and again when it was trained anew."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from stages.core.devices import resolve_device
from stages.core.errors import LatentlineError
from stages.core.sections import PARAMS_PATH, parse_params, read_yaml
from stages.sampling.request import Params
from stages.serving.line import OpenedLine, open_line

__all__ = ["line_or_stop", "working"]

_DATA = Path("data")
_ONE_AT_A_TIME = threading.Lock()


def line_or_stop() -> OpenedLine:
    """The line; where there is none, the page says what to do and ends there."""
    try:
        return _opened(_state())
    except (LatentlineError, OSError) as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Compute within, one visitor at a time; a mistake is told and ends the page there."""
    try:
        with st.spinner(what), _ONE_AT_A_TIME:
            yield
    except LatentlineError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def _state() -> tuple[tuple[str, int], ...]:
    """Changes when a part or the parameters do."""
    manifests = [_DATA / part / "manifest.json" for part in ("autoencoder", "prior", "judge")]
    files = [*manifests, PARAMS_PATH]
    return tuple((str(file), file.stat().st_mtime_ns if file.exists() else 0) for file in files)


@st.cache_resource(max_entries=1, show_spinner="Opening the models")
def _opened(state: tuple[tuple[str, int], ...]) -> OpenedLine:
    params = parse_params(Params, read_yaml(PARAMS_PATH), source=str(PARAMS_PATH), strict=False)
    return open_line(_DATA, params.sampling, resolve_device(params.device))
