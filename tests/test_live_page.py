"""The live page, as an app in a real browser, beside a running pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from pipeline.settings import Settings
from tests.app import opened, served
from tests.running import DEADLINE_S, Up
from tests.shopping import shopping

PATIENCE_MS = DEADLINE_S * 1000


def test_its_numbers_follow_the_commands_that_are_sent(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    settings = Settings(data=tmp_path / "data")
    pipeline = up(settings)
    commands = shopping(3000)
    known = [len({c["command_id"] for c in commands[:count]}) for count in (1000, 3000)]
    with pipeline.ready() as producer:
        producer.send_many(commands[:1000])
        pipeline.settle()
        with served("live.py", settings.data) as address, opened(address) as page:
            counted = page.locator("marimo-stat").filter(has_text="in the log")
            expect(counted).to_contain_text(f"{known[0]:,}", timeout=PATIENCE_MS)
            expect(page.locator("canvas")).to_have_count(4, timeout=PATIENCE_MS)
            producer.send_many(commands[1000:])
            expect(counted).to_contain_text(f"{known[1]:,}", timeout=PATIENCE_MS)
            rate = page.locator("marimo-stat").filter(has_text="commands a second")
            expect(rate).to_contain_text(re.compile(r"\d"), timeout=PATIENCE_MS)
            page.screenshot(path=tmp_path / "live.png")
            expect(page.get_by_text("An internal error occurred")).to_have_count(0)
    assert (tmp_path / "live.png").read_bytes().startswith(b"\x89PNG")
