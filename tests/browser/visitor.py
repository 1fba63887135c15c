"""Somebody in front of a browser: goes to pages, looks, and keeps pictures of what is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE_MS = 240_000
HERE = {"127.0.0.1", "localhost"}


class Visitor:
    """One browser window.

    Attributes:
        page: Playwright's.
        outside: Addresses that pages asked for and that are not on this machine.
    """

    def __init__(self, page: Any, screenshots: Path) -> None:
        self.page, self._screenshots = page, screenshots
        self.outside: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.set_default_navigation_timeout(PATIENCE_MS)
        page.route("**/*", self._let_through)

    def _let_through(self, route: Any) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("data", "blob") or address.hostname in HERE:
            route.continue_()
            return
        # Nothing leaves this machine: what needs the net must show without it.
        self.outside.append(route.request.url)
        route.abort()

    @classmethod
    @contextmanager
    def come(
        cls, chromium: Any, screenshots: Path, width: int = 1200, dark: bool = False
    ) -> Iterator["Visitor"]:
        """Open a window of some width in CSS pixels."""
        context = chromium.new_context(
            viewport={"width": width, "height": 1100}, color_scheme="dark" if dark else "light"
        )
        try:
            yield cls(context.new_page(), screenshots)
        finally:
            context.close()

    def keep(self, name: str) -> Path:
        """Keep a picture of what is on the screen."""
        path = self._screenshots / f"{name}.png"
        self.page.screenshot(path=path)
        assert path.stat().st_size > 5_000, f"{path}: an empty page"
        return path

    def text(self) -> str:
        """All words on the page."""
        return str(self.page.locator("body").inner_text())
