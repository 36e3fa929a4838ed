"""The log's files under names of their own for readers, who may have a published file open all day.

    kept/LOG/partition=3/00000000000000000120.parquet    LOG is the log's identity

The relations of a published file name the log's files. Compaction removes those from the log when
others cover them, but an older published file that somebody has open still names them. So each is
linked here before it is published, which takes no room while the log has it too, and goes from here
a day after it has gone from the log; see `pipeline.read.compaction`.

A folder whose log was replaced by another has no such names: a reader gets an error, never the rows
of the other one. Where the folder was moved, DuckDB's variable `foldlog_kept` says where it is now.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest import crash, rights
from projections.relations import LogFiles, RangeFile, path_in_kept


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A `RangeFile` by the name that stays."""

    first: int
    last: int | None
    path: Path


class Kept:
    """The log's files by those names, which are made as they are asked for."""

    def __init__(self, log: LogFiles, folder: Path) -> None:
        self._log = log
        self.folder = folder
        self._linked: dict[int, dict[str, KeptFile]] = {}

    def files(self, partition: int, first: int = 0) -> Sequence[RangeFile]:
        """As `LogFiles.files`. Raises `OSError` where no links can be made."""
        self._make(self.folder / self._log.identity)
        linked = self._linked.get(partition, {})
        while True:
            found = self._log.files(partition, first)
            try:
                self._linked[partition] = {
                    file.path.name: linked.get(file.path.name) or self._link(partition, file)
                    for file in found
                }
            except FileNotFoundError:  # it was compacted since it was listed
                continue
            return [*self._linked[partition].values()]

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            if folder != self.folder:
                self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            rights.share(folder)

    def _link(self, partition: int, file: RangeFile) -> KeptFile:
        path = self.folder / path_in_kept(self._log.identity, partition, file.path.name)
        self._make(path.parent)
        try:
            crash.point("kept.to_link")
            os.link(file.path, path)
            crash.point("kept.linked")
        except FileExistsError:
            if not path.samefile(file.path):  # it is of this log as it was before a restore
                path.unlink(missing_ok=True)
                return self._link(partition, file)
        return KeptFile(file.first, file.last, path)
