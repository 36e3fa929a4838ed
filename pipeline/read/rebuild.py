"""`foldlog rebuild`: read models made anew from the log alone, while readers keep the old rows.

They are built in a file of their own, beside the pipeline's. When it is complete it is renamed to
`rebuilt.duckdb`, where a running pipeline finds it, takes the rows over in one transaction, and
publishes; without one, that is done here. Killed at any time, it leaves everything as it was.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import duckdb

from ingest import crash
from ingest.errors import DataInUse, FoldlogError, LogDamaged, ReadModelFailed, one_line
from pipeline.deployment import Deployment
from pipeline.lock import alone
from pipeline.log.disk import MEND
from pipeline.log.schemas import check
from pipeline.read.hand_over import hand_over
from pipeline.read.refold import refolded
from pipeline.settings import Settings
from projections.held import held_in
from projections.model import Folded, Stored
from projections.relations import Positions
from projections.tables import FoldedBetween, Tables, digest
from projections.upcast import current_rows
from projections.writer_file import opened

SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Built:
    """One read model, made from so many rows of the log in `seconds`: its share of them, where
    several were made together.
    """

    name: str
    rows: int
    seconds: float


Seen = Callable[[str, int, int], None]
"""Called with what is being built, and how many of how many rows are done, all models added."""


def rebuild(
    settings: Settings,
    names: Collection[str],
    *,
    everything: bool,
    seen: Seen,
    from_the_log: bool = False,
) -> list[Built]:
    """Build the named read models from the log, and all that are new or changed; or everything.

    Aggregates begin from their newest snapshots, which are the fold of the log up to there; with
    `from_the_log` from the first event.
    A view has no rows to build: it is made as its file says, named or not.
    Raises `FoldlogError` where a name is none, and when something else is rebuilding.
    """
    deployed = Deployment.open(settings)
    domain, log = deployed.domain, deployed.log
    settings.protect()
    check(domain, log)
    only_one = alone(
        settings.rebuild_lock, "another rebuild runs on this data directory; wait for it"
    )
    with only_one, log.reading():
        until = {p: log.next_position(p) for p in range(log.partitions)}
        total = sum(until.values())
        built: list[Built] = []
        with _new_file(settings) as db:
            tables = Tables(db, domain)
            views = {view.name for view in tables.views}
            named = [name for name in names if name not in views]
            wanted = _wanted(settings, tables, named, everything)
            tables.prepare(log.partitions)
            _check_whole(db, current_rows(domain, log, {}, until), until)
            for models in _together(wanted):
                done_before = len(built) * total

                def share(
                    done: float, models: list[Stored] = models, before: int = done_before
                ) -> None:
                    at = before + int(done * len(models) * total)
                    seen(models[0].name, at, len(wanted) * total)

                started = time.monotonic()
                with nullcontext() if isinstance(models[0], Folded) else _watched(db, share):
                    folded = refolded(deployed, share, from_the_log=from_the_log)
                    _build(tables, models, deployed, until, folded)
                seconds = (time.monotonic() - started) / len(models)
                built += [Built(model.name, total, seconds) for model in models]
            last_ids = {p: log.stream_id(p, end - 1) or "" for p, end in until.items() if end}
            tables.move_to(until, last_ids)
        all_rows = len(wanted) * total
        hand_over(deployed, lambda: seen("handing over", all_rows, all_rows))
        if left := _wanted(settings, tables, (), everything=False):
            raise DataInUse(
                f"{left[0].name} is not taken over: the running pipeline has other code of the"
                f" domain; start it again, and it builds {left[0].name} by itself"
            )
    return built


@contextmanager
def _new_file(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A file beside the pipeline's, which is the rebuilt one as soon as all is in it."""
    aside = settings.rebuilding
    crash.point("rebuild.to_clear")
    aside.unlink(missing_ok=True)
    crash.point("rebuild.cleared")
    with opened(aside) as db:
        yield db
        crash.point("rebuild.to_checkpoint")
        db.execute("CHECKPOINT")
        crash.point("rebuild.checkpointed")
    crash.point("rebuild.to_rename")
    os.replace(aside, settings.rebuilt)
    crash.point("rebuild.renamed")


def _wanted(
    settings: Settings, tables: Tables, names: Collection[str], everything: bool
) -> list[Stored]:
    """What is to be built."""
    known = [model.name for model in tables.stored]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FoldlogError(
            f"no read model {unknown[0]} has rows of its own; these have: {', '.join(known)}"
        )
    built: set[tuple[str, str]] = set()
    if settings.published.exists():
        with held_in(settings.published) as held:
            built = held.models()
    return [
        model
        for model in tables.stored
        if everything or model.name in names or (model.name, digest(model)) not in built
    ]


def _build(
    tables: Tables,
    models: list[Stored],
    deployed: Deployment,
    until: Positions,
    folded: FoldedBetween,
) -> None:
    try:
        tables.build(models, deployed.log, until, folded)
    except duckdb.Error as error:
        raise ReadModelFailed(
            f"{models[0].name} cannot be built: {one_line(error)}; readers keep the rows they have"
        ) from None


def _together(wanted: list[Stored]) -> list[list[Stored]]:
    """What is built at a time: aggregates' tables, whose states are folded once, or one SELECT."""
    folded: list[Stored] = [model for model in wanted if isinstance(model, Folded)]
    alone: list[list[Stored]] = [[model] for model in wanted if not isinstance(model, Folded)]
    return [folded, *alone] if folded else alone


def _check_whole(db: duckdb.DuckDBPyConnection, rows: str, until: Positions) -> None:
    """A rebuild that passes over missing files would make wrong read models."""
    counted = f"SELECT partition, count(*) FROM ({rows}) GROUP BY partition"
    try:
        found = dict(db.execute(counted).fetchall())
    except duckdb.Error as error:
        raise LogDamaged(f"{one_line(error)}; {MEND}") from None
    for partition, end in until.items():
        if found.get(partition, 0) != end:
            raise LogDamaged(
                f"partition {partition} has {found.get(partition, 0)} of {end} rows;"
                " `foldlog verify` says which file is missing"
            )


@contextmanager
def _watched(db: duckdb.DuckDBPyConnection, share: Callable[[float], None]) -> Iterator[None]:
    """Tell how far DuckDB is with what it is asked meanwhile."""
    db.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(SAMPLE_S):
            share(max(0.0, db.query_progress()) / 100)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        finished.set()
        watching.join()
