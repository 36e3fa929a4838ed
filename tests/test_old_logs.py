"""Old logs stay readable: by the fold, in a rebuild and in SQL, with one declaration.

`tests/fixtures/shop_log` was written with `tests.domains.shop:then`:
`python -m tests.test_old_logs` writes it again. `tests/fixtures/format_1` is what stood there when
a row did not yet name the kind of its aggregate; that format is not read any more.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest

from ingest import event
from ingest.errors import DomainInvalid, LogMismatch
from pipeline.log.log import READERS
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.declaring import redeclared, taking
from tests.domains.shop import LOG, now, sell, then
from tests.running import InProcess, foldlog, read


def write_fixture() -> None:
    with TemporaryDirectory() as folder:
        pipeline = InProcess(Path(folder), then, partitions=1)
        pipeline.run(0, sell(1, price=1.25), sell(2, price=0.1), sell(3, price="free"))
        pipeline.run(0, sell(4, price=19.99, name="Cup"))
        pipeline.writer.close()
        shutil.rmtree(LOG, ignore_errors=True)
        others = shutil.ignore_patterns(READERS)
        shutil.copytree(Path(folder) / "events", LOG / "events", ignore=others)


@pytest.fixture
def old_log(tmp_path: Path) -> Path:
    shutil.copytree(LOG, tmp_path / "data")
    return tmp_path / "data"


def test_a_log_of_an_older_schema_folds_and_goes_on(old_log: Path) -> None:
    pipeline = InProcess(old_log, now, partitions=1)
    state, version = pipeline.partitions[0].aggregates.get(("till", "a")) or (None, 0)
    assert (state.sales, state.takings, state.channels, version) == (3, 125 + 10 + 1999, "www", 3)
    (row,) = pipeline.run(0, sell(5, cents=7, channel="shop"))
    assert (row["schema_version"], row["version"], row["name"]) == (3, 4, "TEA")
    pipeline.writer.close()


def test_old_and_new_events_are_alike_in_sql_live_and_rebuilt(old_log: Path) -> None:
    pipeline = InProcess(old_log, now, partitions=1)
    pipeline.run(0, sell(5, cents=7, channel="shop"))
    live = read(pipeline.publish(), "sales", "tills", "events", "rejections")
    assert live["sales"] == [("CUP", "web", 1, 1999), ("TEA", "shop", 1, 7), ("TEA", "web", 2, 135)]
    assert live["tills"][0][1:4] == (4, 2141, "wwws")
    assert {row[-3:] for row in live["events"]} == {
        ("TEA", 125, "web"), ("TEA", 10, "web"), ("CUP", 1999, "web"), ("TEA", 7, "shop"),
    }  # fmt: skip
    assert len(live["rejections"]) == 1
    pipeline.writer.close()
    (old_log / "writer.duckdb").unlink()
    pipeline.restart()
    assert read(pipeline.publish(), "sales", "tills", "events", "rejections") == live
    pipeline.writer.close()


def test_a_log_of_newer_code_is_a_clear_error(old_log: Path) -> None:
    pipeline = InProcess(old_log, now, partitions=1)
    pipeline.run(0, sell(5, cents=7))
    pipeline.writer.close()
    with pytest.raises(LogMismatch, match="Sold in schema version 3, and this code knows 1"):
        InProcess(old_log, then, partitions=1)


def test_a_version_without_an_upcast_is_a_clear_error() -> None:
    with pytest.raises(DomainInvalid, match=r"needs an Upcast from each version before.*\[1\]"):
        replace(now, upcasts=now.upcasts[:1])

    @event
    class Sold:
        schema_version: ClassVar[int] = 4
        name: str

    with pytest.raises(DomainInvalid, match=r"schema version 4"):
        redeclared(now, evolve=taking(lambda state, event: state, Sold))


@pytest.mark.parametrize(
    "words",
    [
        ["up"],
        ["verify"],
        ["rebuild"],
        ["history", "a"],
        ["query", "FROM events", "--as-of", "2099-01-01"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("format_", "told"),
    [(1, "has format 1, of before a release, and this Foldlog reads format 2; begin a new log"),
     (3, "was written by a newer Foldlog; upgrade")],
)  # fmt: skip
def test_a_log_of_another_format_is_refused_in_one_line_and_stays_as_it_is(
    tmp_path: Path, format_: int, told: str, words: list[str]
) -> None:
    shutil.copytree(LOG.parent / "format_1", tmp_path / "data")
    events = tmp_path / "data" / "events"
    about = json.loads((events / "_log.json").read_text())
    (events / "_log.json").write_text(json.dumps({**about, "format": format_}))
    before = {path: path.read_bytes() for path in events.rglob("*") if path.is_file()}
    settings = Settings(data=tmp_path / "data", domain="tests.domains.shop:then")
    assert told in one_line_of(foldlog(settings, *words))
    assert {path: path.read_bytes() for path in before} == before


if __name__ == "__main__":
    write_fixture()
