"""What the log remembers of its events: each type's aggregate and fields, for each schema version.

    events/_schemas/0.json    event types with their fields, as they were when they were new
    events/_schemas/1.json    a type, a version, or a field that was new then, and so on

A declaration is written, like a commit, exclusively and durably, before the first commit that holds
events of it. So the log never holds an event whose fields it does not know, and nobody changes what
is remembered.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa

from ingest import crash, rights
from ingest.domain import Domain
from ingest.durable import write_exclusively
from ingest.errors import LogDamaged, LogMismatch, Superseded, one_line
from pipeline.log.compatibility import incompatible
from pipeline.log.declared import Declared, declared
from pipeline.log.disk import MEND, told
from pipeline.log.log import Log
from projections.upcast import check_upcasts


def declarations(log: Log) -> list[tuple[Path, bytes]]:
    """What the log remembers of its events' fields, in order.

    Raises `LogDamaged` where a number is missing.
    """
    folder = log.folder / "_schemas"
    paths = [folder / f"{number}.json" for number in range(len([*folder.glob("*.json")]))]
    try:
        return [(path, path.read_bytes()) for path in paths]
    except FileNotFoundError as error:
        raise LogDamaged(f"{error.filename} is missing; {MEND}") from None


def declare(log: Log, number: int, content: bytes) -> None:
    """Durably add the next declaration. Raises `FileExistsError` where another came first."""
    folder = log.folder / "_schemas"
    path = folder / f"{number}.json"
    with told(path):
        folder.mkdir(exist_ok=True)  # were it lost, the files would be asked again
        rights.share(folder)
        write_exclusively(path, content)
        crash.point("declare.done")


def remembered(log: Log) -> list[Declared]:
    """Every declaration that the log was written with."""
    found = []
    for path, content in declarations(log):
        try:
            held = json.loads(content)
            if held["crc32"] != _checksum(held["declared"]):
                raise ValueError("its checksum is wrong")
            found += [Declared(**declaration) for declaration in held["declared"]]
        except (ValueError, TypeError, KeyError) as error:
            raise LogDamaged(f"{path} cannot be read ({one_line(error)}); {MEND}") from None
    return found


def _checksum(declarations: list[dict[str, Any]]) -> int:
    return crc32(json.dumps(declarations).encode())


def problems(domain: Domain, log: Log) -> list[str]:
    """Why the domain's events do not read what the log was written with, a line each.

    Raises `DomainInvalid` where an Upcast's SQL does not hold.
    """
    check_upcasts(domain)
    return incompatible(domain, remembered(log))


def check(domain: Domain, log: Log) -> None:
    """Raises `LogMismatch` for the first of the `problems`."""
    found = problems(domain, log)
    if found:
        more = f" ({len(found) - 1} more event type(s) will be told then)" if found[1:] else ""
        raise LogMismatch(found[0] + more)


class Schemas:
    """The log's memory, for those who write it. Made at their start, which checks the domain."""

    def __init__(self, domain: Domain, log: Log) -> None:
        self._domain = domain
        self._log = log
        self._now = {d.event_type: d for d in declared(domain)}
        self._look()

    def _look(self) -> None:
        """Check the domain against all that the log remembers now."""
        self._checked = len(declarations(self._log))
        check(self._domain, self._log)
        held = remembered(self._log)
        self._new = {name for name, now in self._now.items() if now not in held}
        """The event types whose declaration of now the log does not have yet."""

    def note(self, rows: pa.Table) -> None:
        """Remember the event types of rows that are about to be committed.

        Raises `LogMismatch` where another writer, of other code, has declared them otherwise.
        """
        while self._new and (new := self._new & {*rows["event_type"].unique().to_pylist()}):
            self._add([self._now[name] for name in sorted(new)])

    def _add(self, declarations: list[Declared]) -> None:
        """Write them after those that were checked, or look at what another writer has written.

        Neither, and it is to be tried again, where another start has cleared the unfinished file.
        """
        content = [asdict(declaration) for declaration in declarations]
        held = {"crc32": _checksum(content), "declared": content}
        with suppress(FileExistsError, Superseded):
            declare(self._log, self._checked, json.dumps(held).encode())
        self._look()
