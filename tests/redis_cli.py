"""What `redis-cli -s SOCKET …` does, for machines without it: one command over a plain socket.

    python redis_cli.py -s data/redis/redis.sock XADD '{shop-2}:commands' '*' command '{…}'

Imports no client library: a command is an array of byte strings, as any language can write it.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path


def answer(path: str, *words: str) -> bytes:
    """Send one command to a server's Unix socket; what comes back, as it is on the wire."""
    parts = [word.encode() for word in words]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        bulk = (b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        connection.sendall(b"*%d\r\n" % len(parts) + b"".join(bulk))
        found = connection.recv(65_536)
    if found.startswith(b"-"):
        raise SystemExit(found.decode())
    return found


def put_into(folder: Path) -> None:
    """Make a program `redis-cli` there."""
    folder.mkdir()
    program = folder / "redis-cli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    program.chmod(0o755)


if __name__ == "__main__":
    assert sys.argv[1] == "-s"
    print(answer(*sys.argv[2:]).decode())
