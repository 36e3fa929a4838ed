"""`foldlog resubmit`: rejected commands, sent once more as new ones; stray ones, put right.

The new command's id is made from the old one's, so sending the same rejection twice changes
nothing, and its `causation_id` is the old one's id. A stray command is moved as it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import duckdb
from pydantic_core import from_json

from ingest import strays
from ingest.client import connect as connect_redis
from ingest.diagnosis import explained
from ingest.errors import FoldlogError, one_line
from pipeline.deployment import Deployment
from pipeline.settings import Settings
from projections import connect

NAMESPACE = uuid.UUID("5b0c0e2c-6f4b-4d43-9f0e-2c8f3f1b8a11")
"""Of the ids that resubmitted commands are given (UUID version 5)."""


def rejected_commands(settings: Settings, where: str) -> tuple[list[dict[str, Any]], int]:
    """Rejected commands that meet a SQL condition on `rejections`, made new; how many cannot be.

    What cannot be sent again is no JSON object, or was kept only in part. Raises `FoldlogError`
    where the condition is not SQL.
    """
    domain = settings.load_domain()
    with connect(settings.published) as db:
        try:
            found = db.execute(
                "SELECT command_id, partition, stream_id, correlation_id, payload FROM rejections"
                f" WHERE ({where}) ORDER BY partition, position"
            ).fetchall()
        except duckdb.Error as error:
            raise FoldlogError(one_line(error)) from None
    commands, beyond = [], 0
    for command_id, partition, stream_id, correlation_id, payload in found:
        try:
            command = from_json(payload)
        except ValueError:
            command = None
        if not isinstance(command, dict) or domain.id_in(command) is None:
            beyond += 1
            continue
        sent = "/" in stream_id  # by a policy; then it names the place, and the payload says less
        old = command_id or (stream_id if sent else f"{partition}/{stream_id}")
        command |= {"command_id": str(uuid.uuid5(NAMESPACE, old)), "causation_id": old}
        if sent:
            command["correlation_id"] = correlation_id
        command.pop("reply_to", None)
        commands.append(command)
    return commands, beyond


def move_strays(settings: Settings, *, yes: bool) -> Iterator[tuple[str, int]]:
    """Each stream that no partition has, and how many commands of it were moved, or would be.

    Raises `FoldlogError` where there is no log, or Redis does not allow it.
    """
    deployed = Deployment.open(settings)
    domain, partitions = deployed.domain, deployed.log.partitions
    url = settings.reachable_redis
    with connect_redis(url) as client, explained(url):
        for stream, waiting in strays.look(client, domain.name, partitions).items():
            if yes:
                waiting = strays.move(client, domain, partitions, stream)
            yield stream, waiting
