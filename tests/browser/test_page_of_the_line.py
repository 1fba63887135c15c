"""The web page of a line in a real browser: every view, uploads good and bad, phone and dark."""

import base64
import http.client
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import stages.draw
from tests.browser.visitor import Visitor
from tests.evaluation.tiny_line import CODES, CONTINUOUS
from tests.pipelines.trivial_line import PROJECT, free_port
from tests.serving.lines import make_square_line
from tests.serving.test_uploads import png_header
from tests.waiting import wait_until

pytest.importorskip("streamlit")

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(1200)]


@contextmanager
def opened_page(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    with (folder / "page.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.open_page", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _healthy(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "page.log").read_text()
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def of_codes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, Any]]:
    folder = make_square_line(tmp_path_factory.mktemp("codes"), CODES)
    with opened_page(folder) as (url, process):
        yield folder, url, process


@pytest.fixture(scope="module")
def of_continuous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = make_square_line(tmp_path_factory.mktemp("continuous"), CONTINUOUS)
    with opened_page(folder) as (url, _):
        yield url


def go(visitor: Visitor, url: str, view: str, heading: str) -> None:
    visitor.page.goto(f"{url}/{view}")
    visitor.page.get_by_role("heading", name=heading, exact=True).wait_for()
    settle(visitor)


def settle(visitor: Visitor) -> None:
    """Wait until the script has run, as the page says itself, and all it made has been loaded."""
    page = visitor.page
    page.wait_for_timeout(300)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_selector("[data-testid=stSkeleton]", state="detached")


def images(visitor: Visitor) -> list[bytes]:
    """Bytes of all images of the galleries."""
    sources = visitor.page.locator(".line-tiles img").evaluate_all(
        "all => all.map(image => image.getAttribute('src'))"
    )
    return [base64.b64decode(source.partition(",")[2]) for source in sources]


def test_samples_are_those_of_the_command_line(
    visitor: Visitor, of_codes: tuple[Path, str, Any], tmp_path: Path, monkeypatch
) -> None:
    folder, url, _ = of_codes
    go(visitor, url, "", "Sample")
    assert len(images(visitor)) == 40
    page = visitor.page
    page.get_by_role("combobox", name="Classes").click()
    page.get_by_role("option", name="bag").click()
    page.keyboard.press("Escape")
    page.get_by_label("Images").fill("5")
    page.get_by_label("Seed").fill("11")
    page.get_by_label("Temperature", exact=True).fill("0.5")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_function("document.querySelectorAll('.line-tiles img').length == 5")
    settle(visitor)
    visitor.keep("page-sample")
    monkeypatch.chdir(folder)
    asked = ["--classes", "bag", "--count", "5", "--seed", "11", "--temperature", "0.5"]
    assert stages.draw.main([*asked, "--out", str(tmp_path / "drawn")]) == 0
    drawn = sorted((tmp_path / "drawn").glob("*.png"))
    assert images(visitor) == [path.read_bytes() for path in drawn]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as one picture").click()
    with Image.open(download.value.path()) as picture:
        assert picture.format == "PNG"


def test_a_half_is_completed_and_the_known_half_stays(
    visitor: Visitor, of_codes: tuple[Path, str, Any]
) -> None:
    go(visitor, of_codes[1], "complete", "Complete")
    assert len(images(visitor)) == 2 + 8
    assert "Exact draws" in visitor.text()
    visitor.keep("page-complete")
    page = visitor.page
    page.get_by_role("combobox", name="Known is").click()
    page.get_by_role("option", name="the left half").click()
    page.get_by_text("Approximate: of 64 candidates").wait_for()


def upload(visitor: Visitor, name: str, content: bytes) -> None:
    visitor.page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )
    settle(visitor)


def test_uploads_are_rebuilt_or_refused_in_one_message(
    visitor: Visitor, of_codes: tuple[Path, str, Any]
) -> None:
    go(visitor, of_codes[1], "reconstruct", "Reconstruct")
    assert len(images(visitor)) == 3
    page = visitor.page
    page.get_by_text("Upload", exact=True).click()
    page.get_by_text("Choose a file to begin").wait_for()
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, format="PNG")
    upload(visitor, "gradient.png", file.getvalue())
    page.get_by_text("PSNR").wait_for()
    assert len(images(visitor)) == 3
    visitor.keep("page-reconstruct")
    for name, content, why in (
        ("bomb.png", png_header(30000, 30000), "it promises far more pixels"),
        ("words.png", b"not a picture", "it is none of these"),
        ("film.gif", file.getvalue(), "not allowed"),
        ("large.png", file.getvalue() + bytes(6 * 2**20), "5.0MB"),
    ):
        go(visitor, of_codes[1], "reconstruct", "Reconstruct")
        page.get_by_text("Upload", exact=True).click()
        page.get_by_text("Choose a file to begin").wait_for()
        upload(visitor, name, content)
        page.get_by_text(why).first.wait_for()
        assert images(visitor) == []
        assert "Traceback" not in visitor.text()
        visitor.keep(f"page-refused-{name.partition('.')[0]}")


def test_inside_of_codes(visitor: Visitor, of_codes: tuple[Path, str, Any]) -> None:
    go(visitor, of_codes[1], "interpolate", "Interpolate")
    assert len(images(visitor)) == 2 + 8
    visitor.keep("page-interpolate")
    go(visitor, of_codes[1], "walk", "Latent walk")
    assert "no dimension to walk along" in visitor.text()
    go(visitor, of_codes[1], "codebook", "Codebook")
    assert len(images(visitor)) == 7 + 8
    visitor.keep("page-codebook")


def test_inside_of_continuous_latents(visitor: Visitor, of_continuous: str) -> None:
    go(visitor, of_continuous, "walk", "Latent walk")
    assert len(images(visitor)) == 9
    visitor.keep("page-walk")
    go(visitor, of_continuous, "codebook", "Codebook")
    assert "This line has no codebook" in visitor.text()
    go(visitor, of_continuous, "interpolate", "Interpolate")
    assert len(images(visitor)) == 2 + 8


def test_on_a_phone_in_the_dark(
    chromium: Any, screenshots: Path, of_codes: tuple[Path, str, Any]
) -> None:
    with Visitor.come(chromium, screenshots, width=390, dark=True) as visitor:
        for view, heading in (("", "Sample"), ("complete", "Complete")):
            go(visitor, of_codes[1], view, heading)
            visitor.keep(f"page-phone-dark-{heading.lower()}")
            wide = "[document.documentElement, document.querySelector('[data-testid=stMain]')]"
            overflow = f"{wide}.map(part => part.scrollWidth - part.clientWidth)"
            assert max(visitor.page.evaluate(overflow)) <= 0
            colour = "getComputedStyle(document.querySelector('[data-testid=stApp]'))"
            red = visitor.page.evaluate(f"{colour}.backgroundColor.match(/\\d+/)[0]")
            assert int(red) < 60
        assert visitor.outside == []


def test_only_this_machine_is_answered(of_codes: tuple[Path, str, Any]) -> None:
    _, url, process = of_codes
    listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    port = int(url.rpartition(":")[2])
    statuses = {}
    for host in (f"127.0.0.1:{port}", "evil.example"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        upgrade = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Version": "13",
        }
        connection.request("GET", "/_stcore/stream", headers=upgrade)
        statuses[host] = connection.getresponse().status
        connection.close()
    assert statuses == {f"127.0.0.1:{port}": 101, "evil.example": 403}
