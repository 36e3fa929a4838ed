"""What an AsyncAPI document says of events out: on Redis Streams, and from `foldlog subscribe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ingest.domain import Domain


def channels(domain: Domain) -> dict[str, Any]:
    """Where events come from."""
    return {
        "events": {
            "address": "{stream}:events",
            "title": "The newest events, a Redis Stream for each partition",
            "description": "Only where FOLDLOG_EVENTS_STREAM_MAX bounds them. The event at position"
            " P has the id (P + 1)-0, so XREAD from the last id that was seen gives each event once"
            " and in order, also after Redis has lost some. Who is so late that the stream has"
            " dropped events finds these in the log.",
            "parameters": {
                "stream": {
                    "description": f"`{{{domain.name}-P}}` for partition P, from 0.",
                    "default": f"{{{domain.name}-0}}",
                }
            },
            "messages": {"CloudEvent": {"$ref": "#/components/messages/CloudEvent"}},
        },
        "subscription": {
            "address": None,
            "title": "Events from the log, the lines that `foldlog subscribe` prints",
            "description": "From any position or time on. In each partition they come in order.",
            "messages": {"SubscribedEvent": {"$ref": "#/components/messages/SubscribedEvent"}},
        },
    }


def operations() -> dict[str, Any]:
    """What Foldlog does there."""
    return {
        "publishEvent": {"action": "send", "channel": {"$ref": "#/channels/events"}},
        "printEvent": {"action": "send", "channel": {"$ref": "#/channels/subscription"}},
    }


def schemas(events: Iterable[str], at: str) -> dict[str, Any]:
    """Of both messages; `events` are the names of the events' schemas below `at`."""
    event = {"oneOf": [{"$ref": f"{at}{name}"} for name in events]}
    text = {"type": "string"}
    attributes = {
        "specversion": {"const": "1.0"},
        "id": {**text, "description": "Partition and position, as 3:118."},
        "source": {**text, "description": "The domain, and the log's identity."},
        "type": {**text, "description": "The event's type."},
        "subject": {**text, "description": "The aggregate's id."},
        "time": {**text, "format": "date-time", "description": "When it occurred."},
        "datacontenttype": {"const": "application/json"},
        "data": event,
    }
    line = {"token": {**text, "description": "Where to go on: --since TOKEN."}, "event": event}
    return {
        name: {"type": "object", "properties": parts, "required": list(parts)}
        for name, parts in (("CloudEvent", attributes), ("SubscribedEvent", line))
    }
