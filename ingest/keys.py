"""The keys in Redis, by which both ends find each other.

{shop-3}:commands   a stream for each partition; one field, `command`, holds one JSON object.
                    The braces are a Redis Cluster hash tag.
{shop-3}:behind     commands that Redis gave ids which the log has passed; see `ingest.joining`.
                    An empty stream, as a rule.
{shop-3}:events     the newest events of a partition, where a setting says so; the field `event`
                    holds one JSON object.
shop:replies:ID     a stream for one sender; the field `outcome` holds one JSON object.
                    It expires an hour after the last outcome.
shop:partitions     how many partitions there are, for producers to compute theirs.
shop:repairs        a hash: partition → what was mended when its stream was found behind the log.
shop:halted         a hash: partition → why it is read no more, until it is read again.
"""

from __future__ import annotations

REPLY_EXPIRES_S = 3600
"""How long outcomes wait for a sender that does not come to read them."""


def command_stream(domain: str, partition: int) -> str:
    """Where producers put the commands of a partition."""
    return f"{{{domain}-{partition}}}:commands"


def behind_stream(domain: str, partition: int) -> str:
    """Where commands wait that Redis gave ids which the log has passed."""
    return f"{{{domain}-{partition}}}:behind"


def events_stream(domain: str, partition: int) -> str:
    """Where consumers find the newest events of a partition."""
    return f"{{{domain}-{partition}}}:events"


def reply_prefix(domain: str) -> str:
    """What every `reply_to` begins with: a producer cannot make the pipeline write elsewhere."""
    return f"{domain}:replies:"


def partitions_key(domain: str) -> str:
    """Where the number of partitions stands."""
    return f"{domain}:partitions"


def repairs_key(domain: str) -> str:
    """Where it stands what was mended, by partition."""
    return f"{domain}:repairs"


def halted_key(domain: str) -> str:
    """Where it stands why a partition is read no more."""
    return f"{domain}:halted"
