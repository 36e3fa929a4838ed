"""The pages do not lie: their blocks run in order, and answer what the page shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from ingest.shop import shop
from pipeline.settings import Settings
from tests import redis_cli
from tests.pages import PAGES, Reader, blocks
from tests.running import InProcess, Up, sorted_rows
from tests.shells import foldlog_in

TOGETHER = [
    ["README.md", "docs/tutorial/first-cart.md", "docs/howto/send.md", "docs/howto/ask.md",
     "docs/howto/subscribe.md", "docs/howto/operate.md"],
    ["docs/tutorial/own-domain.md"],
    ["docs/howto/model-a-domain.md", "docs/howto/change-events.md"],
    ["docs/howto/processes.md"],
]  # fmt: skip
"""Pages that are read one after another beside one pipeline, since its start takes long."""


def test_every_page_with_something_to_run_is_run() -> None:
    runs = {b.page for page in PAGES for b in blocks(page) if not b.mark and b.language != "sql"}
    assert runs == {page for pages in TOGETHER for page in pages}


@pytest.mark.parametrize("pages", TOGETHER, ids=lambda pages: Path(pages[-1]).stem)
def test_the_blocks_run_in_order(
    pages: list[str], tmp_path: Path, up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_cli.put_into(tmp_path / "bin")
    home = tmp_path / "home"
    home.mkdir()

    def start(folder: Path) -> Up:
        monkeypatch.chdir(folder)  # where the settings' `.env` is
        return up(Settings(data=folder / "data", publish_interval_ms=50), cwd=folder)

    reader = Reader(home, start, str(tmp_path / "bin"))
    with foldlog_in(tmp_path / "bin"):
        for page in pages:
            reader.follow(page)
    assert reader.pipeline is not None
    assert reader.pipeline.process.poll() is None, "the pipeline has stopped"
    if "docs/tutorial/own-domain.md" in pages:
        assert "cancelled" in (reader.folder / "look.html").read_text()


SQL = [block.text for page in PAGES for block in blocks(page) if block.language == "sql"]


def test_each_select_in_the_pages_is_a_read_model_with_the_rows_that_duckdb_gives(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "read_models"
    folder.mkdir()
    for number, sql in enumerate(SQL):
        (folder / f"page_{number}.sql").write_text(sql)
    add = {"type": "AddProduct", "cart_id": "7", "quantity": 2, "unit_price_cents": 89}
    pipeline = InProcess(tmp_path / "data", replace(shop, read_models=folder), partitions=1)
    for number in range(4):
        pipeline.run(0, add | {"command_id": str(number), "product_id": f"p{number % 3}"})
    with duckdb.connect(str(pipeline.publish()), read_only=True) as db:
        for number, sql in enumerate(SQL):
            rows = sorted_rows(db, f"FROM page_{number}")
            assert rows
            assert rows == sorted_rows(db, sql)
    pipeline.writer.close()
