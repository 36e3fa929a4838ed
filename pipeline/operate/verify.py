"""`foldlog verify`: is every file of the log whole, do the read models say what it says?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.errors import LogDamaged
from pipeline.deployment import Deployment
from pipeline.log.names import LogFile
from pipeline.log.schemas import problems
from pipeline.operate.sends import wrong_sends
from pipeline.read.refold import refolded
from pipeline.settings import Settings
from projections.held import Held
from projections.session import session
from projections.sql import named, quoted
from projections.tables import Tables, digest
from projections.writer_file import opened


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and everything that is wrong, a line each."""

    rows: int
    files: int
    models: int
    wrong: list[str]


def verify(settings: Settings, seen: Callable[[int, int], None]) -> Verified:
    """Read every byte of the log, and compare the published read models with new ones made from it.

    `seen(files, of)` is called as it goes. Raises `LogMismatch` where there is no log of this
    domain.
    """
    deployed = Deployment.open(settings)
    with deployed.log.reading():
        return _verify(deployed, seen)


def _verify(deployed: Deployment, seen: Callable[[int, int], None]) -> Verified:
    settings, domain, log = deployed.settings, deployed.domain, deployed.log
    files = [(p, file) for p in range(log.partitions) for file in log.files(p)]
    wrong: list[str] = []
    rows = 0
    expected = dict.fromkeys(range(log.partitions), 0)
    versions: list[pa.Table] = []
    for number, (partition, file) in enumerate(files, 1):
        if file.first != expected[partition]:
            wrong.append(
                f"partition {partition}: positions {expected[partition]} to {file.first - 1}"
                f" are missing before {file.path}"
            )
        try:
            table = log.read_file(file)
        except LogDamaged as damage:
            following = [f.first for p, f in files if p == partition and f.first > file.first]
            end = f"{min(following) - 1}" if following else "the end"
            wrong.append(f"partition {partition}: positions {file.first} to {end}: {damage}")
            expected[partition] = min(following, default=file.first)
        else:
            wrong += _wrong_rows(partition, file, table)
            versions.append(table.select(["aggregate", "aggregate_id", "version"]))
            expected[partition] = file.first + len(table)
            rows += len(table)
        seen(number, len(files))
    if not wrong:
        wrong += _wrong_versions(pa.concat_tables(versions)) if versions else []
    if not wrong:
        try:
            wrong += problems(domain, log)
        except LogDamaged as damage:
            wrong.append(str(damage))
    if not wrong:
        wrong += wrong_sends(domain, log)
    models = 0
    if not wrong and settings.published.exists():
        models, differences = _compare(deployed)
        wrong += differences
    return Verified(rows, len(files), models, wrong)


def _wrong_rows(partition: int, file: LogFile, table: pa.Table) -> list[str]:
    """Rows that are not where their file says."""
    positions = pa.array(range(file.first, file.first + len(table)), pa.int64())
    if not len(table):
        return [f"{file.path} is empty"]
    if not table["position"].combine_chunks().equals(positions):
        return [f"{file.path}: its positions do not follow its name"]
    if not pc.all(pc.equal(table["partition"], partition)).as_py():
        return [f"{file.path}: it holds rows of another partition"]
    return []


def _wrong_versions(rows: pa.Table) -> list[str]:
    """Aggregates whose events are not numbered 1, 2, 3 …"""
    with session() as db:
        db.register("rows", rows)
        found = db.execute(
            "SELECT aggregate, aggregate_id FROM rows WHERE version IS NOT NULL GROUP BY ALL"
            " HAVING min(version) <> 1 OR max(version) <> count(*)"
            " OR count(DISTINCT version) <> count(*) ORDER BY ALL LIMIT 10"
        ).fetchall()
    return [
        f"{aggregate} {aggregate_id}: its versions have gaps" for aggregate, aggregate_id in found
    ]


def _compare(deployed: Deployment) -> tuple[int, list[str]]:
    """How many read models there are, and those whose rows differ from what the log gives."""
    settings, domain, log = deployed.settings, deployed.domain, deployed.log
    folded = refolded(deployed, lambda _: None, from_the_log=True)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "made.duckdb") as db:
        db.execute(f"ATTACH {quoted(str(settings.published))} AS published (READ_ONLY)")
        held = Held(db, "published")
        until = held.positions()
        identity, _ = held.origin() or (None, "")
        if identity != log.identity:
            return 0, [
                f"{settings.published} was made from another log;"
                " `foldlog up` makes a new one at its start"
            ]
        tables = Tables(db, domain)
        tables.prepare(log.partitions)
        tables.build(tables.stored, log, until, folded)
        tables.show()
        wrong = []
        shown = held.models()
        for model in tables.stored:
            if (model.name, digest(model)) not in shown:
                wrong.append(
                    f"read model {model.name} is not built as it is declared now:"
                    " `foldlog rebuild` does it"
                )
                continue
            ours, log_says = f"published.main.{named(model.name)}", f"main.{named(model.name)}"
            (differing,) = db.execute(
                f"SELECT count(*) FROM ((FROM {ours} EXCEPT ALL FROM {log_says})"
                f" UNION ALL (FROM {log_says} EXCEPT ALL FROM {ours}))"
            ).fetchone() or (0,)
            if differing:
                wrong.append(
                    f"read model {model.name}: {differing} rows differ from the log;"
                    f" `foldlog rebuild {model.name}` builds it anew"
                )
    return len(tables.stored), wrong
