"""Streams of a domain that no partition has: commands that nobody reads, found and moved.

A producer that computes the partition wrongly, with a signed CRC-32 say, sends to
`{shop--2}:commands`; Redis takes it without a word.

shop:strays    what was found last, as JSON: stream → commands; it expires, and is looked for again.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis
from pydantic_core import from_json

from ingest import crash
from ingest.client import open_client
from ingest.command import partition_of
from ingest.diagnosis import unreachable
from ingest.domain import Domain
from ingest.keys import command_stream, partitions_key
from ingest.outage import is_mistake

logger = logging.getLogger("foldlog")

KEYS_A_LOOK = 1000
"""Keys that Redis passes by in one SCAN, well below a millisecond."""

PAUSE_S = 0.001
"""Between two of them, for the others whom Redis serves."""

LOOK_S = 5.0
"""Plenty for a Redis of our own; beside millions of keys of others some streams may be missed."""

FOUND_EXPIRES_S = 150
"""A running pipeline looks every minute; without one, whoever asks looks after this time."""

MOVED_AT_ONCE = 100


def warning(stream: str, commands: int) -> str:
    """One line for people, with what to do."""
    return (
        f"{commands:,} command(s) wait in {stream}, which no partition reads: their sender computes"
        " the partition wrongly (CRC-32 is unsigned); move them with `foldlog resubmit --stray`"
    )


def strays_key(domain: str) -> str:
    """Where it stands what was found last."""
    return f"{domain}:strays"


def look(
    client: redis.Redis, domain: str, partitions: int, within_s: float = LOOK_S
) -> dict[str, int]:
    """Stray streams and how many commands wait in each, written down for `found`.

    Passes once by the keys of this Redis, or by as many as it can in that time.
    """
    own = {command_stream(domain, p) for p in range(partitions)}
    strays = {}
    for stream in _streams(client, domain, within_s):
        if stream not in own and not _is_anothers(client, domain, stream):
            with suppress(redis.ResponseError):  # no stream, or gone
                if waiting := int(client.xlen(stream)):
                    strays[stream] = waiting
    with suppress(redis.ResponseError):
        client.set(strays_key(domain), json.dumps(strays), ex=FOUND_EXPIRES_S)
    return strays


def found(client: redis.Redis, domain: str, partitions: int, within_s: float) -> dict[str, int]:
    """What was found last, by whomever; looks again only where that is long ago."""
    known: Any = client.get(strays_key(domain))
    if known is None:
        return look(client, domain, partitions, within_s)
    strays: dict[str, int] = json.loads(known)
    return strays


def move(client: redis.Redis, domain: Domain, partitions: int, stream: str) -> int:
    """Move a stray stream's commands to where they belong; how many.

    Each is added and deleted in one transaction, so a kill in between neither loses nor doubles
    one. What names no aggregate goes to partition 0, which will find it unreadable.
    """
    moved = 0
    while True:
        entries: Any = client.xrange(stream, count=MOVED_AT_ONCE)
        if not entries:
            break
        pipe = client.pipeline(transaction=True)
        for stream_id, fields in entries:
            right = _partition(domain, fields.get(b"command"), partitions)
            pipe.xadd(command_stream(domain.name, right), fields)
            pipe.xdel(stream, stream_id)
        crash.point("move.to_send")
        pipe.execute()
        crash.point("move.sent")
        moved += len(entries)
    client.transaction(_delete_if_empty(stream), stream)
    client.delete(strays_key(domain.name))
    return moved


def _delete_if_empty(stream: str) -> Callable[[Any], None]:
    def delete(pipe: Any) -> None:
        empty = pipe.xlen(stream) == 0  # and stays so: the stream is watched
        pipe.multi()
        if empty:
            pipe.delete(stream)

    return delete


def _streams(client: redis.Redis, domain: str, within_s: float) -> Iterator[str]:
    deadline = time.monotonic() + within_s
    escaped = re.sub(r"([*?\[\]\\])", r"\\\1", domain)
    seen: set[bytes] = set()
    cursor = 0
    while True:
        answer: Any = client.scan(cursor, match=f"{{{escaped}-*}}:commands", count=KEYS_A_LOOK)
        cursor, keys = answer
        for key in keys:
            if key not in seen:  # SCAN may name one twice
                seen.add(key)
                with suppress(UnicodeDecodeError):
                    yield key.decode()
        if cursor == 0 or time.monotonic() > deadline:
            return
        time.sleep(PAUSE_S)


def _is_anothers(client: redis.Redis, domain: str, stream: str) -> bool:
    """Whether `{shop-eu-0}:commands` belongs to a domain `shop-eu`, and not to `shop`."""
    inside = stream.removeprefix(f"{{{domain}-").removesuffix("}:commands")
    parts = inside.removeprefix("-").split("-")  # -2 is a signed number
    names = ("-".join([domain, *parts[:n]]) for n in range(1, len(parts)))
    try:
        return any(client.exists(partitions_key(name)) for name in names)
    except redis.ResponseError:  # not ours to look at
        return True


def _partition(domain: Domain, payload: bytes | None, partitions: int) -> int:
    with suppress(ValueError):
        command = from_json(payload or b"")
        if isinstance(command, dict) and (found := domain.id_in(command)) is not None:
            return partition_of(found, partitions)
    return 0


class Watch:
    """Looks for commands that lie where nobody reads them, and warns once of each stream."""

    def __init__(self, url: str, domain: str, partitions: int) -> None:
        self._url = url
        self._domain = domain
        self._partitions = partitions
        self._known: set[str] = set()
        self._may_look = True

    def __call__(self) -> None:
        try:
            with open_client(self._url) as client:
                found = look(client, self._domain, self._partitions)
        except redis.RedisError as error:  # an outage is the workers' concern
            if is_mistake(error) and self._may_look:
                self._may_look = False
                logger.warning(
                    "stray commands are not looked for: %s", unreachable(self._url, error)
                )
            return
        for stream in found.keys() - self._known:
            logger.warning("%s", warning(stream, found[stream]))
        self._known |= found.keys()
