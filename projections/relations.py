"""The relations that SQL may read: `events`, `rejections` and `outcomes`, over rows of the log.

events      the domain's events: every column of the log but `reason` and `payload`
rejections  commands that came to nothing: envelope, `reason`, and `payload` as bytes
outcomes    one row for each command: `partition`, `stream_id`, `command_id`, `aggregate`,
            `aggregate_id`, `outcome` (accepted, rejected, unreadable), `reason`, `first_position`,
            `last_position`, `recorded_at`

Where the domain has policies, two more show what these have sent, a row for each:

sends       `partition`, `position`, `aggregate`, `aggregate_id`, `command`, `correlation_id`,
            `causation_id`, `recorded_at`, `hops`, `to_partition`, `state` (waiting, or its
            outcome), `reason`, `first_position` of its outcome in that partition
deadlines   the same with `due_at`, without `hops` and `to_partition`; its `state` may be replaced
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.envelope import (
    DEFERRED,
    ENVELOPE,
    OUTCOME_COLUMNS,
    REJECTED,
    SENDING_COLUMNS,
    SENT,
    SYSTEM_TYPES,
    UNREADABLE,
)
from projections.sql import named, quoted, sql_type


class RangeFile(Protocol):
    """One file of the log, which holds a range of a partition's positions."""

    @property
    def first(self) -> int:
        """Its first position."""

    @property
    def last(self) -> int | None:
        """Its last position; None where its name does not say."""

    @property
    def path(self) -> Path:
        """Where it is."""


class Listed(Protocol):
    """Something that has the log's files by some name."""

    def files(self, partition: int, first: int = 0) -> Sequence[RangeFile]:
        """The files that hold a partition from position `first` on, in order, without overlap."""


class LogFiles(Listed, Protocol):
    """What the read side needs of the log: which files hold a partition, and where it ends."""

    @property
    def partitions(self) -> int:
        """How many there are."""

    @property
    def identity(self) -> str:
        """What tells this log from every other."""

    def next_position(self, partition: int) -> int:
        """The position that the next row will have."""

    def stream_id(self, partition: int, position: int) -> str | None:
        """The stream id of the row at a position; None where there is none."""

    def reading(self) -> AbstractContextManager[None]:
        """While this lasts, files that were listed stay where they are."""


Positions = Mapping[int, int]
"""Partition → the next position, that is how many of its rows are in."""

Files = Mapping[int, Sequence[RangeFile]]
"""Partition → files of the log, in order."""

KEPT_VARIABLE = "foldlog_kept"
"""Of DuckDB: where `kept/` is, for relations that were published when it was elsewhere."""


def definitions(schema: pa.Schema, log: str = "log") -> dict[str, str]:
    """Each relation's SELECT over the SQL relation `log`, which has the log's columns."""
    not_of_events = {*OUTCOME_COLUMNS.names, *SENDING_COLUMNS.names}
    events = [n for n in schema.names if n not in not_of_events]
    rejections = [n for n in ENVELOPE.names if n not in ("version", "schema_version")]
    sends = f" WHERE event_type NOT IN ('{SENT}', '{DEFERRED}')" if has_sends(schema) else ""
    return {
        "events": (
            f"SELECT {', '.join(map(named, events))} FROM {log}"
            f" WHERE event_type NOT IN {SYSTEM_TYPES}"
        ),
        "rejections": (
            f"SELECT {', '.join(rejections)}, reason, payload FROM {log}"
            f" WHERE event_type IN ('{REJECTED}', '{UNREADABLE}')"
        ),
        "outcomes": (
            "SELECT partition, stream_id, any_value(command_id) AS command_id,"
            " any_value(aggregate) AS aggregate, any_value(aggregate_id) AS aggregate_id,"
            f" CASE max(event_type) FILTER (event_type IN ('{REJECTED}', '{UNREADABLE}'))"
            f" WHEN '{REJECTED}' THEN 'rejected' WHEN '{UNREADABLE}' THEN 'unreadable'"
            " ELSE 'accepted' END AS outcome,"
            " any_value(reason) AS reason, min(position) AS first_position,"
            " max(position) AS last_position, any_value(recorded_at) AS recorded_at"
            f" FROM {log}{sends} GROUP BY partition, stream_id"
        ),
    }


def has_sends(schema: pa.Schema) -> bool:
    """Whether the log has columns for what policies send."""
    return set(SENDING_COLUMNS.names) <= set(schema.names)


def sent(schema: pa.Schema, log: str) -> dict[str, str]:
    """`sends` and `deadlines` over the SQL relation `log`, where the domain has policies.

    They are for questions: no read model is kept live from them.
    """
    if not has_sends(schema):
        return {}
    about = (
        "SELECT s.partition, s.position, s.aggregate, s.aggregate_id,"
        " json_extract_string(decode(s.payload), '$.type') AS command,"
        " s.correlation_id, s.causation_id, s.recorded_at"
    )
    outcomes = definitions(schema, f"(FROM {log} WHERE contains(stream_id, '/'))")["outcomes"]
    joined = (
        f" FROM {log} s LEFT JOIN ({outcomes}) o ON o.partition = s.to_partition"
        " AND o.stream_id = s.partition || '/' || s.position"
    )
    newer = (
        "lead(s.position) OVER (PARTITION BY s.partition, s.aggregate, s.aggregate_id, command"
        " ORDER BY s.position)"
    )
    return {
        "sends": (
            f"{about}, s.hops, s.to_partition, coalesce(o.outcome, 'waiting') AS state, o.reason,"
            f" o.first_position{joined} WHERE s.event_type = '{SENT}'"
        ),
        "deadlines": (
            f"{about}, s.due_at, coalesce(o.outcome, CASE WHEN {newer} IS NULL THEN 'waiting' ELSE"
            f" 'replaced' END) AS state, o.reason, o.first_position{joined}"
            f" WHERE s.event_type = '{DEFERRED}'"
        ),
    }


def with_relations(schema: pa.Schema, log: str, query: str, reads: str | None = None) -> str:
    """`query` with the relations in its WITH clause, over the rows of the SQL relation `log`.

    With `reads`, only the one that it reads: DuckDB plans each one that is named.
    """
    known = definitions(schema)
    return with_parts({"log": log, **({reads: known[reads]} if reads else known)}, query)


def with_parts(parts: Mapping[str, str], query: str) -> str:
    """`query` with these relations in its WITH clause, each of which may read those before it."""
    return f"WITH {', '.join(f'{name} AS ({sql})' for name, sql in parts.items())} {query}"


def files_between(log: Listed, since: Positions, until: Positions) -> dict[int, list[RangeFile]]:
    """Partition → the files that hold its positions from `since` up to, not including, `until`."""
    return {
        partition: [f for f in log.files(partition, since.get(partition, 0)) if f.first < end]
        for partition, end in until.items()
        if since.get(partition, 0) < end
    }


def path_in_kept(identity: str, partition: int, name: str) -> str:
    """A file's path below `kept/`, which no other log has; see `projections.kept`."""
    return f"{identity}/partition={partition}/{name}"


def _paths(files: Files, kept: Path | None) -> str:
    """SQL for the list of the files' paths; of those in `kept`, that a variable can lead to it."""
    paths = [os.path.abspath(file.path) for held in files.values() for file in held]
    if kept is None:
        return f"[{', '.join(map(quoted, paths))}]"
    root = os.path.abspath(kept)
    names = ", ".join(quoted(os.path.relpath(path, root)) for path in paths)
    folder = f"coalesce(getvariable('{KEPT_VARIABLE}'), {quoted(root)})"
    return f"list_transform([{names}], lambda name: {folder} || '/' || name)"


def rows_between(
    log: LogFiles,
    schema: pa.Schema,
    since: Positions,
    until: Positions,
    files: Files | None = None,
    kept: Path | None = None,
) -> str:
    """SQL for the log's rows from `since` up to but not including `until`, read from its files.

    `schema` names every column that some file may have; files that lack one show NULL for it.
    `files` are those that hold them, where they have been listed already, and `kept` the folder of
    these, where readers may have moved it.
    """
    found = files_between(log, since, until) if files is None else files
    if not any(found.values()):
        return empty_rows(schema)
    ranges = [
        f"(partition = {partition} AND position >= {since.get(partition, 0)}"
        f" AND position < {until[partition]})"
        for partition in found
    ]
    paths = _paths(found, kept)
    source = f"read_parquet({paths}, hive_partitioning = false)"
    if any(_columns(held[0].path) != tuple(schema.names) for held in found.values() if held):
        source = (
            f"({empty_rows(schema)} UNION ALL BY NAME SELECT * FROM"
            f" read_parquet({paths}, hive_partitioning = false, union_by_name = true))"
        )
    return f"SELECT * FROM {source} WHERE {' OR '.join(ranges)}"


@lru_cache(maxsize=4096)
def _columns(path: Path) -> tuple[str, ...]:
    """The columns of one of the log's files, which never change."""
    return tuple(pq.read_schema(path).names)


def empty_rows(schema: pa.Schema) -> str:
    """SQL for no rows, with the log's columns."""
    columns = ", ".join(f"NULL::{sql_type(field.type)} AS {named(field.name)}" for field in schema)
    return f"SELECT {columns} WHERE false"
