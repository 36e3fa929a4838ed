"""The ways to keep a rule over several aggregates do what their page says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.settings import Settings
from projections import connect
from tests.pages import blocks
from tests.reacting import Workers
from tests.running import Up

PAGE = "docs/howto/rules-across-aggregates.md"
WAYS = {block.text.partition(" = Domain(")[0].rpartition("\n")[2]: block for block in blocks(PAGE)}
"""The name of each block's domain → the block."""


def written(folder: Path, way: str) -> Path:
    path = folder / f"{way}.py"
    path.write_text(WAYS[way].text)
    return path


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("way", ["users", "theatre", "tickets", "bank"])
def test_the_story_of_each_way_happens_as_the_page_tells_it(tmp_path: Path, way: str) -> None:
    assert module(written(tmp_path, way))


def test_no_way_is_left_out() -> None:
    assert [*WAYS] == ["users", "theatre", "tickets", "bank"]


def test_a_check_by_the_read_side_takes_back_what_is_too_much_and_compensates_once(
    settings: Settings, up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.data.parent
    written(folder, "tickets")
    monkeypatch.chdir(folder)
    settings = settings.model_copy(update={"domain": "tickets:tickets"})
    pipeline = up(settings, cwd=folder)
    with pipeline.ready() as producer:
        page = sys.modules["tickets"]
        for number, customer in enumerate(["ada", "ada", "bob", "ada", "ada"]):
            producer.send(
                page.BuyTicket(
                    command_id=f"b{number}", ticket_id=f"t{number}", customer_id=customer, cents=100
                )
            )
        pipeline.settle()
        for _ in "twice":
            with connect(settings.published) as db:
                page.check(db, producer)
                page.check(db, producer)
            pipeline.settle()
    with connect(settings.published) as db:
        back = db.execute("SELECT ticket_id FROM tickets WHERE status = 'taken back' ORDER BY ALL")
        assert back.fetchall() == [("t3",), ("t4",)]
        assert db.execute("SELECT customer_id, cents FROM purses").fetchall() == [("ada", 200)]
        assert db.execute("SELECT count(*) FROM rejections").fetchall() == [(0,)]


def test_under_one_tag_the_send_is_in_one_commit_and_what_it_causes_in_the_next(
    tmp_path: Path,
) -> None:
    page = module(written(tmp_path, "bank"))
    workers = Workers(tmp_path / "data", page.bank, [[0]])
    workers.send(page.Deposit(account_id=page.GIRO, cents=50))
    workers.send(page.Move(account_id=page.GIRO, to_account=page.SAVINGS, cents=20))

    def happened() -> list[str]:
        return [row["event_type"] for row in workers.rows(0)]

    assert workers.step(0, 0)
    assert happened() == ["Deposited", "Moved", "CommandSent"]
    workers.kill(0)
    assert workers.step(0, 0)
    assert happened() == ["Deposited", "Moved", "CommandSent", "Deposited"]
    assert not workers.step(0, 0)
