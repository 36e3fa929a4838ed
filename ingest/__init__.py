"""The write side: commands, what a domain is, the shop, producers, Redis Streams.

    rules        events  annotations  aggregate  policy  domain  spec  shop
    around them  loading  code_digest  contract  event_contract  graph
    its data     command  reading  columns  envelope  outcome
    sending      wire  replies  producer  async_producer
    receiving    source  stop  reader  line  joining  repair  scripts  answers  halted  strays
    telling      event_stream
    Redis        keys  stream_id  entries  redis_clock  client  diagnosis  outage  acl  server…
    all sides    errors  durable  rights  crash  child

Handed on from here is what the author of a domain and a sender of commands import. Each name loads
its module when it is first used, so that `import ingest` costs nothing.

What may not come in: Parquet files, DuckDB, and anything of `pipeline` or `projections`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.aggregate import Aggregate
    from ingest.async_producer import AsyncProducer
    from ingest.command import Command, Identifier
    from ingest.domain import Domain, Upcast
    from ingest.errors import (
        CommandInvalid,
        CommandTooLarge,
        FoldlogError,
        NotAvailable,
        OutcomeTimeout,
        RedisUnreachable,
        Rejected,
    )
    from ingest.events import event
    from ingest.outcome import Outcome
    from ingest.policy import Later, Of
    from ingest.producer import Producer
    from ingest.server_socket import embedded_url
    from ingest.spec import Spec

__all__ = [
    "Aggregate", "AsyncProducer", "Command", "CommandInvalid", "CommandTooLarge", "Domain",
    "FoldlogError", "Identifier", "Later", "NotAvailable", "Of", "Outcome", "OutcomeTimeout",
    "Producer", "RedisUnreachable", "Rejected", "Spec", "Upcast", "embedded_url", "event",
]  # fmt: skip

_MODULES = {
    "Aggregate": "aggregate", "AsyncProducer": "async_producer", "Command": "command",
    "Domain": "domain", "Identifier": "command", "Later": "policy", "Of": "policy",
    "Outcome": "outcome", "Producer": "producer",
    "Spec": "spec", "Upcast": "domain", "embedded_url": "server_socket", "event": "events",
}  # fmt: skip
"""Name → its module; every other name is an error. No module has such a name: it would hide it."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    return getattr(import_module(f"ingest.{_MODULES.get(name, 'errors')}"), name)
