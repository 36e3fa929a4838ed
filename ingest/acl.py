"""What a pipeline's user must be allowed in Redis, tried before anything depends on it.

Each command is tried in a form that changes nothing, so that a missing right is one line at the
start. `docs/howto/redis-users.md` has the whole list.
"""

from __future__ import annotations

from typing import Any

import redis

from ingest.keys import behind_stream, command_stream, reply_prefix
from ingest.outage import is_mistake

_BEYOND_ALL = "18446744073709551615-18446744073709551615"


def try_rights(client: redis.Redis, domain: str, partitions: int) -> None:
    """Raises redis-py's error for the first command that may not be run on a key of ours."""
    pipe: Any = client.pipeline(transaction=False)
    streams = [of(domain, p) for of in (command_stream, behind_stream) for p in range(partitions)]
    for stream in streams:
        pipe.execute_command("XREAD", "COUNT", 1, "STREAMS", stream, _BEYOND_ALL)
        pipe.execute_command("XRANGE", stream, _BEYOND_ALL, _BEYOND_ALL, "COUNT", 1)
        pipe.execute_command("XINFO", "STREAM", stream)
        pipe.execute_command("XLEN", stream)
        pipe.execute_command("XTRIM", stream, "MINID", "0-0")
        pipe.execute_command("XADD", stream, "NOMKSTREAM", "0-0", "command", "")  # no valid id
        pipe.execute_command("XDEL", stream, "0-0")
        pipe.execute_command("EVAL", "return 1", 1, stream)
    nobody = reply_prefix(domain)
    pipe.execute_command("XADD", nobody, "NOMKSTREAM", "0-0", "outcome", "")
    pipe.execute_command("EXPIRE", nobody, 1)
    for answer in pipe.execute(raise_on_error=False):
        if isinstance(answer, redis.ResponseError) and (
            is_mistake(answer) or isinstance(answer, redis.ReadOnlyError)
        ):
            raise answer
