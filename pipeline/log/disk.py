"""What the disk says while the log is written, as errors for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import NoRoom, Superseded

MEND = "restore it from a backup, and check with `foldlog verify`"
"""What a user does about a file of the log that is missing or damaged."""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of the system for the user; but for `FileExistsError`, which is an answer."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename2 is not None:
            raise Superseded(
                f"{path} is not written: another process has started on this part of the log,"
                " and has cleared what it found unfinished"
            ) from None
        raise NoRoom(
            f"cannot write {path}: {error.strerror}; nothing is lost: make room, and start again"
        ) from None
