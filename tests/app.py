"""A notebook as an app, in a process of its own, and its page in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Page, Route

from tests.chromium import chromium
from tests.running import DEADLINE_S, wait_for
from tests.servers import free_port

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@contextmanager
def served(notebook: str, data: Path) -> Iterator[str]:
    """Its address, while `marimo run` serves it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = ["run", str(NOTEBOOKS / notebook), "--headless", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "marimo", *words, "--port", str(port)],
        env={**os.environ, "FOLDLOG_DATA": str(data), "MARIMO_SKIP_UPDATE_CHECK": "1"},
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "marimo has stopped; what it wrote says why"
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
        return False

    try:
        wait_for(answers, "marimo to serve the notebook")
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opened(address: str, height: int = 900) -> Iterator[Page]:
    """The page in a browser. At the end it fails if the page has asked any other address."""
    outside: list[str] = []

    def only_from_here(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1180, "height": height})
        page.route("**/*", only_from_here)
        page.goto(address, timeout=DEADLINE_S * 1000)
        yield page
    assert outside == []
