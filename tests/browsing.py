"""A Chromium of the system, driven by Playwright, for tests of the page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser: the one that ``CHROMIUM`` names, or the system's; skips where there is none."""
    playwright = None
    with suppress(ImportError):
        from playwright import sync_api as playwright
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if playwright is None or path is None:
        lacking = "Playwright (pip install playwright)" if playwright is None else "Chromium (apt-get install chromium)"
        pytest.skip(f"{lacking} is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that is open: what it said on its console, and where it wanted to go."""

    def __init__(self, browser: Any, path: Path, *, scripts: bool = True, theme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": 1440, "height": 900}, color_scheme=theme, java_script_enabled=scripts
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(60_000)
        self.session = self.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(path.as_uri())

    def busy(self) -> float:
        """Seconds of a processor that the page has taken so far, on its main thread, whoever else was running."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration"))

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until ``expression`` is true in the page.

        Asked from here again and again: Playwright's own wait evaluates its text inside the page from the second
        look on, which the page's content security policy forbids, so that it would only work where it need not wait.
        """
        last = time.monotonic() + seconds
        while not self.page.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < last, f"not true after {seconds} s: {expression}"
            time.sleep(0.02)

    def close(self) -> None:
        """Done; nothing may have gone wrong."""
        said, requests = self.said, self.requests
        self.context.close()
        assert not said
        assert len(requests) == 1, "a page fetches nothing"
