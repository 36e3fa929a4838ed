"""A domain's process as a drawing in Mermaid, from what its rules and policies declare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ingest.command import command_type
from ingest.domain import Domain
from ingest.events import event_name
from ingest.policy import Declared

OUTSIDE = "outside"


def mermaid(domain: Domain) -> str:
    """Aggregates, and between them each policy with the events and the commands of its arrow.

    Commands that no policy sends come from outside; a dotted arrow is a deadline.
    """
    policies = domain.declared_policies
    sent = {cls for said in policies for cls in (*said.sends, *said.defers)}
    lines = ["flowchart LR"]
    for aggregate in domain.aggregates:
        lines.append(f"    {aggregate.name}[{aggregate.name}]")
        if outside := [command_type(c) for c in aggregate.commands if c not in sent]:
            lines.append(f'    {OUTSIDE}(( )) -- "{_lines(outside)}" --> {aggregate.name}')
    return "\n".join([*lines, *(arrow for said in policies for arrow in _arrows(domain, said))])


def _arrows(domain: Domain, said: Declared) -> Iterator[str]:
    for source in domain.aggregates:
        happened = [event_name(cls) for cls in said.events if cls in source.events.values()]
        if not happened:
            continue
        for target in domain.aggregates:
            sends = [command_type(c) for c in target.commands if c in said.sends]
            if sends:
                about = f"{said.name}:<br>{_lines(happened)}<br>→ {_lines(sends)}"
                yield f'    {source.name} -- "{about}" --> {target.name}'
        if later := [command_type(c) for c in source.commands if c in said.defers]:
            about = f"{said.name}:<br>{_lines(happened)}<br>→ later {_lines(later)}"
            yield f'    {source.name} -. "{about}" .-> {source.name}'


def _lines(names: Iterable[str]) -> str:
    return "<br>".join(names)
