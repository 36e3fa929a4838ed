"""What an event type is: as the domain declares it now, or as a printed contract has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.domain import Domain
from ingest.envelope import LOG_KEY, field_types
from ingest.errors import NotAvailable, one_line


@dataclass(frozen=True, slots=True)
class Declared:
    """An event type in one schema version, as some declaration of the domain had it."""

    event_type: str
    schema_version: int
    fields: Mapping[str, str]
    """Field → type, as `ingest.envelope.field_types` writes it."""
    aggregate: str | None = None
    """Which kind it happens to; None in a declaration that does not say so."""


def declared(domain: Domain) -> list[Declared]:
    """What the domain's events are now."""
    return [
        Declared(name, domain.schema_version(name), field_types(kind.events[name]), kind.name)
        for name, kind in domain.evolvers.items()
    ]


def declared_in(contract: Path) -> list[Declared]:
    """What the events were in a document that `foldlog schema` has printed.

    Raises `NotAvailable` where it cannot be read, or says nothing of the log's fields.
    """
    try:
        document = json.loads(contract.read_bytes())
        found = [Declared(**about) for about in _all_of(LOG_KEY, document)]
    except (OSError, ValueError, TypeError) as error:
        raise NotAvailable(f"cannot read {contract}: {one_line(error)}") from None
    if not found:
        raise NotAvailable(
            f"{contract} does not say what the log's fields are; print it, with the code that is"
            " deployed, by `foldlog schema events`"
        )
    return found


def _all_of(key: str, document: Any) -> Iterator[Any]:
    """The values of that key, wherever it is in a JSON document, also in a comment's JSON."""
    if isinstance(document, dict):
        if key in document:
            yield document[key]
        comment = document.get("$comment")
        if isinstance(comment, str) and key in comment:
            yield from _all_of(key, json.loads(comment))
        document = [*document.values()]
    for inner in document if isinstance(document, list) else ():
        yield from _all_of(key, inner)
