"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from ingest import crash, rights


def write_exclusively(path: Path, content: bytes, suffix: str = ".tmp") -> None:
    """Durably make `path` with `content`. Raises `FileExistsError` where it exists.

    Written beside under a name with `suffix` first; raises `FileNotFoundError` with a `filename2`
    where somebody has removed that meanwhile.
    """
    with _beside(path, content, suffix) as beside:
        crash.point("commit.to_link")
        os.link(beside, path)
        crash.point("commit.linked")
    crash.point("commit.to_fsync_folder")
    fsync_folder(path.parent)
    crash.point("commit.done")


def replace(path: Path, content: bytes, suffix: str = ".tmp") -> None:
    """Durably put `content` in the place of what `path` holds, if there is such a file."""
    with _beside(path, content, suffix) as beside:
        crash.point("replace.to_rename")
        os.replace(beside, path)
        crash.point("replace.renamed")
    crash.point("replace.to_fsync_folder")
    fsync_folder(path.parent)
    crash.point("replace.done")


@contextmanager
def _beside(path: Path, content: bytes, suffix: str) -> Iterator[Path]:
    """A file with the content, on the disk. Its name is drawn: process ids are not unique where
    containers share a disk."""
    beside = path.with_name(f"_{path.name}.{token_hex(8)}{suffix}")
    try:
        with open(beside, "xb") as file:
            rights.share(beside)
            file.write(content)
            crash.point("commit.to_write")
            file.flush()  # all of it, or an error: an unbuffered write may end half-way without one
            crash.point("commit.written")
            os.fsync(file.fileno())
            crash.point("commit.fsynced")
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """The names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
