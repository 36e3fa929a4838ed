"""Who may read what Foldlog writes: its owner alone, or one group as well.

Everything is made for its owner alone. What is for readers is shared as the folder that it is in
is: where the data directory lets a group in, that group may read it.
"""

from __future__ import annotations

import grp
import logging
import os
import stat
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ingest.errors import FoldlogError, NotAvailable

logger = logging.getLogger("foldlog")

OWNER_ALONE = 0o077
"""The umask of every process that writes."""

_GROUP_READS = 0o640
_GROUP_LISTS = 0o2750
"""With the bit that makes what comes into the folder the group's."""
_GROUP_PASSES = 0o2710


def share(path: Path) -> None:
    """Let those who are let into the folder of `path` read it, if this file or folder is ours."""
    if path.parent.stat().st_mode & stat.S_IXGRP:
        with suppress(PermissionError):
            path.chmod(_GROUP_LISTS if path.is_dir() else _GROUP_READS)


def temporary() -> Path:
    """A folder of this user's for all that is temporary, one for all processes.

    Raises `NotAvailable` where somebody else could look into it.
    """
    folder = Path(tempfile.gettempdir()) / f"foldlog-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not ours or found.st_mode & OWNER_ALONE:
        raise NotAvailable(f"{folder} is no folder for this user alone; remove it, or set TMPDIR")
    return folder


def protect(data: Path, group: str | None, shared: Collection[Path]) -> None:
    """Make the data directory if need be, and let in its owner alone.

    With a group also that group, as far as to read what is `shared`. Raises `FoldlogError` where
    there is no such group, or this user is not in it.
    """
    os.umask(OWNER_ALONE)
    data.mkdir(parents=True, exist_ok=True)
    try:
        if group is None:
            data.chmod(0o700)
        else:
            _let_in(data, _number(group), shared)
    except PermissionError as error:
        if group is not None:
            raise FoldlogError(
                f"{error.filename} cannot be given to the group {group}: this user must own it, and"
                " be in that group"
            ) from None
        if data.stat().st_mode & 0o007:
            logger.warning("everybody may look into %s, and it is another user's to close", data)


def _number(group: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise FoldlogError(
            f"there is no group {group} on this machine; see FOLDLOG_GROUP"
        ) from None


def _let_in(data: Path, group: int, shared: Collection[Path]) -> None:
    """Once: what is made later is shared by its folder."""
    found = data.stat()
    if found.st_gid == group and stat.S_IMODE(found.st_mode) == _GROUP_PASSES:
        return
    for path in data.iterdir():
        if path not in shared and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    for path in shared:
        for folder, _, files in os.walk(path):
            for name in files:
                _give(Path(folder, name), group, _GROUP_READS)
            _give(Path(folder), group, _GROUP_LISTS)
        if path.is_file():
            _give(path, group, _GROUP_READS)
    _give(data, group, _GROUP_PASSES)


def _give(path: Path, group: int, mode: int) -> None:
    with suppress(FileNotFoundError):  # another process has removed it
        os.chown(path, -1, group)
        path.chmod(mode)
