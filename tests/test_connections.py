"""Many who ask at once, by threads or asyncio, while the file is replaced: each gets its own."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.errors import NotAvailable, OutcomeTimeout
from ingest.outcome import Outcome
from projections import AsyncReadModels, ReadModels, ask, connect
from projections.shop.queries import GetCart
from tests.many import CARTS, MANY, add, publishing
from tests.running import InProcess

SELECT = "SELECT cart_id, units FROM carts WHERE cart_id = ?"


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[InProcess]:
    pipeline = InProcess(tmp_path, partitions=1)
    pipeline.run(0, *map(add, range(CARTS)))
    pipeline.publish()
    yield pipeline
    pipeline.writer.close()


def answers(db: ReadModels, cart: int) -> list[tuple[Any, Any]]:
    """One cart, asked for in each way."""
    name = f"cart-{cart}"
    typed = ask(db, GetCart(cart_id=name))
    (row,) = db.rows(SELECT, [name])
    return [
        (typed and typed.cart_id, typed and typed.units),
        (row["cart_id"], row["units"]),
        *db.execute(SELECT, [name]).fetchall(),
        *db.sql(SELECT, params=[name]).fetchall(),
        *db.execute("SELECT aggregate_id, quantity FROM events WHERE aggregate_id = ?", [name])
        .fetchall(),
    ]  # fmt: skip


def test_threads_that_share_a_connection_get_their_own_answers(pipeline: InProcess) -> None:
    together = threading.Barrier(MANY)

    def client(number: int) -> list[tuple[Any, Any]]:
        together.wait()
        return [answer for turn in range(3) for answer in answers(db, (number + turn) % CARTS)]

    with connect(pipeline.folder / "read_models.duckdb") as db:
        before = db.published_ns
        with publishing(pipeline) as published, ThreadPoolExecutor(MANY) as threads:
            found = [threads.submit(client, number) for number in range(MANY)]
            for number, answered in enumerate(found):
                carts = [(number + turn) % CARTS for turn in range(3)]
                assert answered.result() == [(f"cart-{c}", c + 1) for c in carts for _ in range(5)]
        db.rows("SELECT 1")
        assert db.published_ns > before
        (rows,) = db.rows("SELECT count(*) AS n FROM carts WHERE cart_id LIKE 'later%'")
        assert rows["n"] == len(published) > 0


def test_what_was_asked_stays_while_the_file_moves_on(pipeline: InProcess) -> None:
    count = "SELECT count(*) FROM carts"
    with connect(pipeline.folder / "read_models.duckdb") as db:
        answer, relation, table = db.execute(count), db.sql(count), db.table("carts")
        pipeline.run(0, add(0, "later"))
        pipeline.publish()
        assert db.sql(count).fetchall() == [(CARTS + 1,)]
        assert answer.fetchall() == relation.fetchall() == [(CARTS,)]
        assert len(table.fetchall()) == CARTS


def test_tasks_that_share_a_connection_get_their_own_answers(pipeline: InProcess) -> None:
    async def client(db: AsyncReadModels, number: int) -> None:
        name = f"cart-{number % CARTS}"
        cart = await db.ask(GetCart(cart_id=name))
        assert cart is not None
        units = number % CARTS + 1
        assert (cart.cart_id, cart.units) == (name, units)
        assert await db.rows(SELECT, [name]) == [{"cart_id": name, "units": units}]

    async def main() -> None:
        path = pipeline.folder / "read_models.duckdb"
        async with await AsyncReadModels.connect(path) as db:
            await asyncio.gather(*(client(db, number) for number in range(MANY)))

    with publishing(pipeline):
        asyncio.run(main())


def test_neither_waiting_nor_asking_keeps_the_event_loop(pipeline: InProcess) -> None:
    path = pipeline.folder / "read_models.duckdb"
    slow = "SELECT count(*) AS n FROM range(40000) a, range(10000) b WHERE a.range + b.range > 0"

    async def ticks(until: asyncio.Future[Any]) -> int:
        count = 0
        while not until.done():
            await asyncio.sleep(0.001)
            count += 1
        return count

    async def publish() -> None:
        """In the loop itself: whoever waits there in vain would wait for ever."""
        pipeline.run(0, add(0, "later"))
        pipeline.publish()

    async def main() -> None:
        async with await AsyncReadModels.connect(path) as db:
            asked = asyncio.ensure_future(db.rows(slow))
            assert await ticks(asked) > 3
            await asked
            outcome = Outcome("accepted", "later-0", 0, CARTS)
            with pytest.raises(OutcomeTimeout, match="was not published within"):
                await db.wait_for(outcome, timeout=0.01)
            await asyncio.gather(*(db.wait_for(outcome) for _ in range(MANY)), publish())
            cart = await db.ask(GetCart(cart_id="later-0"))
            assert cart is not None
        with pytest.raises(NotAvailable):
            await AsyncReadModels.connect(path.with_name("nothing.duckdb"))

    asyncio.run(main())


BEYOND_MEMORY = (
    "SELECT sum(n) AS n FROM"
    " (SELECT range AS n, md5(range::VARCHAR) m FROM range(2000000) ORDER BY m)"
)
LITTLE_MEMORY = {"memory_limit": "50MB", "threads": 1}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user in a temporary folder, which is empty."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "temporary" / f"foldlog-{os.getuid()}"


def test_what_does_not_fit_into_memory_spills_and_leaves_nothing_in_any_folder(
    pipeline: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = pipeline.folder / "read_models.duckdb"
    with connect(path, config=LITTLE_MEMORY) as db:
        assert db.rows(BEYOND_MEMORY) == [{"n": 1_999_999_000_000}]
        assert [*temporary.iterdir()]
    assert [*temporary.iterdir(), *(tmp_path / "here").iterdir()] == []


def test_processes_that_are_killed_leave_one_folder_for_all_of_their_user(
    pipeline: InProcess, temporary: Path
) -> None:
    asks = """if True:
        import os, signal, sys
        from projections import connect
        db = connect(sys.argv[1])
        db.rows("SELECT 1")
        os.kill(os.getpid(), signal.SIGKILL)"""
    path = pipeline.folder / "read_models.duckdb"
    for _ in range(2):
        died = subprocess.run([sys.executable, "-c", asks, path], check=False)
        assert died.returncode == -signal.SIGKILL
    assert [*temporary.parent.iterdir()] == [temporary]
    assert temporary.stat().st_mode == stat.S_IFDIR | 0o700
    assert [*temporary.iterdir()] == []


def test_nothing_spills_where_another_user_could_look_into_it(
    pipeline: InProcess, temporary: Path
) -> None:
    temporary.mkdir()
    temporary.chmod(0o755)
    with (
        connect(pipeline.folder / "read_models.duckdb", config=LITTLE_MEMORY) as db,
        pytest.raises(duckdb.OutOfMemoryException),
    ):
        db.rows(BEYOND_MEMORY)
    assert [*temporary.iterdir()] == []
