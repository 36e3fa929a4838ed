"""The aggregates of a partition: those touched lately in memory, the others in its snapshot."""

from __future__ import annotations

from itertools import islice
from typing import Any, Protocol, TypeAlias

Aggregate: TypeAlias = tuple[Any, int]
"""State and version."""


class Cold(Protocol):
    """Where aggregates are that are not in memory: the log's, up to `position`."""

    position: int

    def load(self, aggregate_id: str) -> Aggregate | None: ...


class Aggregates:
    """Aggregates by id: in memory those touched lately, and all that changed since the snapshot."""

    def __init__(self, snapshot: Cold | None = None) -> None:
        self._snapshot = snapshot
        self._changed: dict[str, Aggregate] = {}
        """Those that no snapshot has as they are now."""
        self._clean: dict[str, Aggregate] = {}
        """Others that were touched lately, none that is among the changed; the oldest first."""
        self._some_are_cold = snapshot is not None and snapshot.position > 0

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._changed) + len(self._clean)

    def get(self, aggregate_id: str) -> Aggregate | None:
        """Its state and version, None where it has no events; then it is in memory."""
        found = self._changed.get(aggregate_id) or self._clean.get(aggregate_id)
        if found is None and self._some_are_cold and self._snapshot is not None:
            found = self._snapshot.load(aggregate_id)
            if found is not None:
                self._clean[aggregate_id] = found
        return found

    def update(self, changed: dict[str, Aggregate]) -> None:
        """They are now like this."""
        self._changed.update(changed)
        self._no_longer_clean(changed)

    def take_changed(self) -> dict[str, Aggregate]:
        """What the next snapshot has to write."""
        changed, self._changed = self._changed, {}
        self._clean.update(changed)
        return changed

    def put_back(self, changed: dict[str, Aggregate]) -> None:
        """It could not be written."""
        self._changed = {**changed, **self._changed}
        self._no_longer_clean(changed)

    def _no_longer_clean(self, changed: dict[str, Aggregate]) -> None:
        if self._clean:
            for aggregate_id in changed:
                self._clean.pop(aggregate_id, None)

    def forget(self, most: int) -> None:
        """Keep at most so many in memory, besides those that no snapshot has; the oldest go."""
        too_many = len(self) - most
        if too_many > 0:
            self._some_are_cold = True
            for aggregate_id in [*islice(self._clean, too_many)]:
                del self._clean[aggregate_id]
