"""Whose data lies in the embedded server's folder, and which program may go on with it.

appendonly.aof    one file: Redis before 7
appendonlydir/    a folder of files: Redis from 7 on, and Valkey
server.json       the program that was started there last, and its version

A server that does not know the files of another starts empty, without a word. So the folder is
claimed before a server starts on it: what the program can read is carried over by the program
itself, anything else is refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest import crash
from ingest.errors import NotAvailable

SINGLE_FILE, FOLDER, CLAIM = "appendonly.aof", "appendonlydir", "server.json"

FIRST_WITH_FOLDER = 7
"""The major version of Redis that keeps several files."""

READ_BY_VALKEY = (7, 2)
"""The last Redis before Valkey became a program of its own; the files of later ones differ."""


@dataclass(frozen=True, slots=True)
class Program:
    """A server program: `redis` or `valkey`, and its version as it says it."""

    program: str
    version: str

    def __str__(self) -> str:
        return f"{self.program} {self.version}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version, to compare."""
        return tuple(map(int, self.version.split(".")))


def program_at(path: Path) -> Program:
    """What a server program says it is. Raises `NotAvailable` where it is no such program."""
    try:
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{path} cannot be run ({error}); name a redis-server") from None
    found = re.match(r"(\w+) server v=(\d+(?:\.\d+)*)", ran.stdout)
    if found is None:
        raise NotAvailable(f"{path} is no redis-server; name one with FOLDLOG_REDIS_SERVER=/path")
    return Program(found[1].lower(), found[2])


def claim(folder: Path, program: Program) -> None:
    """Note that `program` is about to start on the folder.

    Raises `NotAvailable`, and changes nothing, where it might not read all that lies there.
    """
    _refuse_two(folder)
    claimed = _claimed(folder)
    writer = claimed or _by_its_files(folder)
    if writer is not None and not _reads(program, writer):
        raise NotAvailable(
            f"{folder} was written by {writer}, which {program} may not read; name a server that"
            " does with FOLDLOG_REDIS_SERVER=/path, or move the folder away when no command waits"
            " in it (`foldlog status` says lag 0)"
        )
    if claimed != program:
        unfinished = folder / f"{CLAIM}.next"
        unfinished.write_text(json.dumps(asdict(program)) + "\n")
        crash.point("claim.to_rename")
        os.replace(unfinished, folder / CLAIM)
        crash.point("claim.renamed")


def _reads(program: Program, writer: Program) -> bool:
    """Whether the program goes on with another's files: a later one of the same name does."""
    if program.program == writer.program:
        return program.numbers >= writer.numbers
    return (program.program, writer.program) == ("valkey", "redis") and (
        writer.numbers[:2] <= READ_BY_VALKEY
    )


def _claimed(folder: Path) -> Program | None:
    try:
        return Program(**json.loads((folder / CLAIM).read_text()))
    except (OSError, ValueError, TypeError):  # no file, or one that a power cut left empty
        return None


def _by_its_files(folder: Path) -> Program | None:
    """The earliest program that could have left what lies in a folder that no one has claimed.

    A later one's files are refused by the server that cannot read them.
    """
    if (folder / FOLDER).exists():
        return Program("redis", f"{FIRST_WITH_FOLDER}.0")
    return Program("redis", "1.0") if (folder / SINGLE_FILE).exists() else None


def _refuse_two(folder: Path) -> None:
    """Both kinds of files are there only when two programs took turns, each blind to the other."""
    single, several = folder / SINGLE_FILE, folder / FOLDER
    manifest = several / f"{SINGLE_FILE}.manifest"
    if not single.exists() or not manifest.exists():
        return
    if f"file {SINGLE_FILE} " in manifest.read_text() and not (several / SINGLE_FILE).exists():
        return  # killed as it was moving the one file into the folder: it goes on with that
    newer, older = sorted((single, manifest), key=lambda path: path.stat().st_mtime)[::-1]
    names = {single: SINGLE_FILE, manifest: f"{FOLDER}/"}
    raise NotAvailable(
        f"{folder} holds what two servers have written, {names[newer]} and the older"
        f" {names[older]}; move the older one away to go on with the newer one, and send again"
        " what still waits in it"
    )
