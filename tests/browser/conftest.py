"""A real headless Chromium, and a folder for what it has seen.

The pictures are kept in `.work/screenshots`, or where LATENTLINE_SCREENSHOTS says. The browser is
that of the system (`chromium`, `google-chrome`), or the one LATENTLINE_CHROMIUM names.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.imports import PROJECT
from tests.browser.visitor import Visitor

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("LATENTLINE_CHROMIUM")
    program = named or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here; install one, or name it in LATENTLINE_CHROMIUM")
    with api.sync_playwright() as playwright:
        # Its own sandbox is not to be had for root and in containers.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = Path(os.environ.get("LATENTLINE_SCREENSHOTS", PROJECT / ".work" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def window(chromium: object, screenshots: Path) -> Iterator[Visitor]:
    # One for all, as somebody who stays: what a page has loaded once is there.
    with Visitor.come(chromium, screenshots) as someone:
        yield someone


@pytest.fixture
def visitor(window: Visitor) -> Iterator[Visitor]:
    window.outside.clear()
    yield window
    assert window.outside == [], "a page asked for something that is not on this machine"
