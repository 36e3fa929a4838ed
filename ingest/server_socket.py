"""Where the embedded server of a data directory listens."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from ingest import rights

SOCKET_PATH_MAX = 100
"""Bytes; the kernel's limit for a Unix socket's path is 104 to 108."""


def socket_path(data: Path) -> Path:
    """The socket of the embedded server, which need not run.

    Raises `NotAvailable` where somebody else could listen there.
    """
    path = data.resolve() / "redis" / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    return rights.temporary() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


def embedded_url(data: Path | str) -> str:
    """The URL of the Redis that a pipeline on this data directory runs."""
    return f"unix://{quote(os.fsencode(socket_path(Path(data))))}"
