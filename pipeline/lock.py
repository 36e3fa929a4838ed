"""Only one at a time: a lock on a file, which the system lets go of when its process is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import DataInUse

RETRY_S = 0.05


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock now."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextmanager
def alone(path: Path, refusal: str, wait_s: float = 0) -> Iterator[int]:
    """Hold the lock; the file descriptor keeps it, also in a child process that inherits it.

    Raises `DataInUse` with `refusal` when another one still holds it after `wait_s` seconds.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DataInUse(refusal) from None
                time.sleep(RETRY_S)
        yield lock
    finally:
        os.close(lock)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock together with others who share it. To read the file is right enough.

    Where there is none, and none can be made, the folder is not ours to write: nothing is held.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody does, not even shared; whether that is so."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(lock)
