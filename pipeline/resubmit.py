"""`foldlog resubmit`: rejected commands, sent once more as new ones.

The new command's id is made from the old one's, so sending the same rejection twice changes
nothing, and its `causation_id` is the old one's id.
"""

from __future__ import annotations

import uuid
from typing import Any

import duckdb
from pydantic_core import from_json

from ingest.errors import FoldlogError, one_line
from pipeline.settings import Settings
from projections.query import connect

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
                "SELECT command_id, partition, stream_id, payload FROM rejections"
                f" WHERE ({where}) ORDER BY partition, position"
            ).fetchall()
        except duckdb.Error as error:
            raise FoldlogError(one_line(error)) from None
    commands, beyond = [], 0
    for command_id, partition, stream_id, payload in found:
        try:
            command = from_json(payload)
        except ValueError:
            command = None
        if not isinstance(command, dict) or not isinstance(command.get(domain.id_field), str):
            beyond += 1
            continue
        old = command_id or f"{partition}/{stream_id}"
        command |= {"command_id": str(uuid.uuid5(NAMESPACE, old)), "causation_id": old}
        command.pop("reply_to", None)
        commands.append(command)
    return commands, beyond
