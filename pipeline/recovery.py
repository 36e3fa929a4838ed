"""What comes back from the log: a partition's writer, and the folded rows of any range of it."""

from __future__ import annotations

import logging
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns import Column, as_is, record_of, values_of
from ingest.domain import Domain
from ingest.entries import Entry
from ingest.errors import FoldlogError, LogMismatch
from ingest.joining import Compare, Standing
from ingest.schema import OUTCOME_TYPES
from ingest.stream_id import as_numbers
from pipeline.aggregates import Aggregate, Aggregates
from pipeline.fold import Fold, FoldedRows, Partition, failed
from pipeline.log import Log, LogFile
from pipeline.outcomes import Outcomes, Window
from pipeline.snapshot import Snapshot
from projections.relations import Positions, named, with_relations
from projections.session import session
from projections.upcast import current_rows, upcast_table

logger = logging.getLogger("foldlog")

SCANNED_ROWS = 65_536


class Decoder:
    """From rows of the log back to the domain's events."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._types = {name: record_of(cls) for name, cls in domain.events.items()}
        self._known = {
            name: domain.schema_version(name) for name in (*domain.events, *OUTCOME_TYPES)
        }
        body = {name for record in self._types.values() for name in record.columns}
        self._needed = {"event_type", "aggregate_id", "version", "schema_version", *body}

    @property
    def columns(self) -> list[str]:
        """What to read of events that are upcast already."""
        return sorted(self._needed)

    def columns_with(self, *more: str) -> list[str] | None:
        """What to read of the log; None for every column, since an upcast may look at any."""
        return None if self._domain.upcasts else sorted({*self._needed, *more})

    def events(self, rows: pa.Table) -> list[Any]:
        """Each row's event, as `decide` made it, or None for a row that is an outcome.

        Raises `LogMismatch` for an event that newer code has written, and for a value that is none
        of its enum any more.
        """
        rows = self.current(rows)
        events: list[Any] = [None] * len(rows)
        for event_type, record in self._types.items():
            where = pc.indices_nonzero(pc.equal(rows["event_type"], event_type))
            picked = rows.take(where)
            indices = where.to_pylist()
            columns = [
                _values(picked[name], column, f"{event_type}.{name}")
                for name, column in record.columns.items()
            ]
            made = record.make_all(columns) if columns else (record.cls() for _ in indices)
            for index, event in zip(indices, made, strict=True):
                events[index] = event
        return events

    def current(self, rows: pa.Table) -> pa.Table:
        """The rows as code of today would have written them; the same table where it did."""
        return rows if self._is_current(rows) else upcast_table(self._domain, rows)

    def _is_current(self, rows: pa.Table) -> bool:
        """Whether all events are of the present versions, and none of a later one."""
        kinds = rows.select(["event_type", "schema_version"]).group_by(
            ["event_type", "schema_version"]
        )
        current = self._needed <= set(rows.schema.names)
        for kind in kinds.aggregate([]).to_pylist():
            event_type, version = kind["event_type"], kind["schema_version"]
            known = self._known.get(event_type)
            if known is None:
                raise LogMismatch(
                    f"the log holds {event_type} events, and the domain declares none of that name"
                )
            if version > known:
                raise LogMismatch(
                    f"the log holds {event_type} in schema version {version}, and this code knows"
                    f" {known}: it is older than the log; upgrade it"
                )
            current = current and version == known
        return current


def _values(found: pa.ChunkedArray, column: Column, where: str) -> list[Any]:
    """The values of the event field `where`."""
    values = values_of(found)
    if column.from_log is as_is:
        return values
    try:
        return [None if value is None else column.from_log(value) for value in values]
    except LookupError as error:
        raise LogMismatch(
            f"{where}: the log holds {error}, and this code has no such value; put it back,"
            " or give the event a new schema_version and an Upcast"
        ) from None


def fold_rows(
    domain: Domain,
    decoder: Decoder,
    known: Callable[[str], Aggregate | None],
    rows: pa.Table,
) -> dict[str, Aggregate]:
    """The aggregates that the events among `rows` change, after them; `known` is from before."""
    evolve, initial = domain.decider.evolve, domain.decider.initial
    changed: dict[str, Aggregate] = {}
    ids, versions = rows["aggregate_id"].to_pylist(), rows["version"].to_pylist()
    for event, aggregate_id, version in zip(decoder.events(rows), ids, versions, strict=True):
        if event is not None:
            found = changed.get(aggregate_id) or known(aggregate_id)
            changed[aggregate_id] = evolve(found[0] if found else initial, event), version
    return changed


def restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None = None,
    reached: Callable[[Partition, str], None] = lambda *_: None,
) -> tuple[Partition, str]:
    """A partition's writer as it was after its last commit, and the stream id to read after.

    From the snapshot and what the log has above it; from the log alone where that is of no use.
    `reached` is called with both as it goes.
    """
    log.settle(number)
    with log.reading():
        if snapshot is not None:
            try:
                if not is_of(snapshot, log, number):
                    snapshot.discard()
                return _restore(domain, log, number, window, snapshot, reached)
            except sqlite3.DatabaseError as error:
                logger.warning("the snapshot of partition %s is of no use (%s)", number, error)
                snapshot.discard()
        return _restore(domain, log, number, window, snapshot, reached)


def is_of(snapshot: Snapshot, log: Log, number: int) -> bool:
    """Whether the log has the snapshot's last row, and so is the one that it was made from."""
    if not snapshot.position:
        return True
    return log.stream_id(number, snapshot.position - 1) == snapshot.command


def _restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None,
    reached: Callable[[Partition, str], None],
) -> tuple[Partition, str]:
    partition = Partition(number, aggregates=Aggregates(snapshot))
    decoder = Decoder(domain)
    last_stream_id = "0-0"
    if snapshot is not None and snapshot.position:
        partition.next_position, last_stream_id = snapshot.position, snapshot.command
    columns = decoder.columns_with("position", "stream_id")
    for rows in log.read(number, partition.next_position, columns):
        try:
            known = partition.aggregates
            known.update(fold_rows(domain, decoder, known.get, rows))
        except (FoldlogError, sqlite3.Error):
            raise
        except Exception as error:
            first = rows["position"][0].as_py()
            raise failed(f"evolving partition {number} from position {first}", error) from error
        partition.next_position = rows["position"][-1].as_py() + 1
        last_stream_id = rows["stream_id"][-1].as_py()
        reached(partition, last_stream_id)
    partition.outcomes = Outcomes(window, log, number, partition.next_position)
    return partition, last_stream_id


def comparison(log: Log, number: int, fold: Fold, partition: Partition | None = None) -> Compare:
    """Which of some entries of a partition's stream the log has; see `ingest.joining.Standing`.

    Those whose command `partition` remembers from another entry are duplicates.
    """

    def compare(entries: Sequence[Entry]) -> list[Standing]:
        kept = _kept(log, number, [entry[0].decode() for entry in entries])
        found: list[Standing] = []
        for entry in entries:
            known_by = fold.known_by(entry)
            if kept.get(entry[0].decode()) == known_by:
                found.append("committed")
            else:
                again = partition is not None and partition.has_outcome(entry[0], known_by[0])
                found.append("duplicate" if again else "new")
        return found

    return compare


def _kept(
    log: Log, number: int, stream_ids: Sequence[str]
) -> dict[str, tuple[str | None, bytes | None]]:
    """Of those stream ids that the log has: the command's id, or where it has none its payload.

    Reads only the files from the first of the ids, which ascend, to the last.
    """
    columns = ["stream_id", "command_id", "payload"]
    asked = pa.array(stream_ids, pa.string())
    kept: dict[str, tuple[str | None, bytes | None]] = {}

    def begins(file: LogFile) -> tuple[int, int]:
        return as_numbers(log.read_file(file, ["stream_id"])["stream_id"][0].as_py())

    with log.reading():
        files = log.files(number)
        since = bisect_right(files, as_numbers(stream_ids[0]), key=begins)
        for file in files[max(0, since - 1) :]:
            rows = log.read_file(file, columns)
            found = rows.filter(pc.is_in(rows["stream_id"], asked))
            for row in found.to_pylist():
                command_id = row["command_id"]
                kept[row["stream_id"]] = command_id, None if command_id else row["payload"]
            if as_numbers(rows["stream_id"][-1].as_py()) >= as_numbers(stream_ids[-1]):
                break
    return kept


def scan(
    domain: Domain,
    log: Log,
    until: Positions,
    *,
    where: str = "true",
    parameters: Sequence[Any] = (),
    columns: str | None = None,
) -> Iterator[pa.Table]:
    """The domain's events below `until` that meet a condition, as code of today would write them.

    Partition by partition, in order; tables of up to `SCANNED_ROWS` with the given columns, or
    those that `fold_rows` needs. For many events: DuckDB reads and filters them on all cores, and
    does not check the pages' checksums as `Log.read` does.
    """
    shown = columns or ", ".join(map(named, Decoder(domain).columns))
    with session() as db:
        db.execute("SET enable_progress_bar = false")  # it prints where it takes us for a notebook
        for partition, end in until.items():
            rows = current_rows(domain, log, {}, {partition: end})
            query = with_relations(domain.schema, rows, f"SELECT {shown} FROM events WHERE {where}")
            found = db.sql(query, params=[*parameters]).to_arrow_reader(SCANNED_ROWS)
            for batch in found:
                yield pa.Table.from_batches([batch])


def folded(domain: Domain, events: Iterable[pa.Table]) -> pa.Table:
    """The folded read model's rows after these events, each aggregate's in order."""
    decoder = Decoder(domain)
    aggregates: dict[str, Aggregate] = {}
    for rows in events:
        aggregates |= fold_rows(domain, decoder, aggregates.get, rows)
    return FoldedRows(domain).table(aggregates)


class Refold:
    """The folded read model's rows, from the log alone; see `projections.tables.FoldedBetween`."""

    def __init__(self, domain: Domain, log: Log) -> None:
        self._domain = domain
        self._log = log
        self._none = FoldedRows(domain).schema.empty_table()

    def __call__(self, since: Positions, until: Positions) -> pa.Table:
        moved = {p: end for p, end in until.items() if since.get(p, 0) < end}
        tables = [self.partition(p, since.get(p, 0), end) for p, end in moved.items()]
        return pa.concat_tables([self._none, *tables])

    def partition(self, number: int, since: int, until: int) -> pa.Table:
        """As of `until`, the aggregates of one partition that have events from `since` on."""
        touched = None
        if since:
            columns = ["position", "event_type", "aggregate_id"]
            recent = self._log.read(number, since, columns)
            touched = pa.array({i for t in recent for i in t["aggregate_id"].unique().to_pylist()})
        events = scan(self._domain, self._log, {number: until})
        if touched is not None:
            events = (rows.filter(pc.is_in(rows["aggregate_id"], touched)) for rows in events)
        return folded(self._domain, events)
