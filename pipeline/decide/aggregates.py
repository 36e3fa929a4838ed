"""The aggregates of a partition: those touched lately in memory, the others in its snapshot."""

from __future__ import annotations

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
        self._hot: dict[str, Aggregate] = {}
        self._changed: dict[str, Aggregate] = {}
        self._some_are_cold = snapshot is not None and snapshot.position > 0

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._hot)

    def get(self, aggregate_id: str) -> Aggregate | None:
        """Its state and version, None where it has no events; then it is in memory."""
        found = self._hot.get(aggregate_id)
        if found is None and self._some_are_cold and self._snapshot is not None:
            found = self._snapshot.load(aggregate_id)
            if found is not None:
                self._hot[aggregate_id] = found
        return found

    def update(self, changed: dict[str, Aggregate]) -> None:
        """They are now like this, and the youngest."""
        for aggregate_id in changed:
            self._hot.pop(aggregate_id, None)  # so that it becomes the youngest
        self._hot.update(changed)
        if self._snapshot is not None:
            self._changed.update(changed)

    def take_changed(self) -> dict[str, Aggregate]:
        """What the next snapshot has to write."""
        changed, self._changed = self._changed, {}
        return changed

    def put_back(self, changed: dict[str, Aggregate]) -> None:
        """It could not be written."""
        self._changed = {**changed, **self._changed}

    def forget(self, most: int) -> None:
        """Keep at most so many in memory, besides those that no snapshot has; the oldest go."""
        too_many = len(self._hot) - most
        if too_many > 0:
            self._some_are_cold = True
            clean = (i for i in self._hot if i not in self._changed)
            for aggregate_id in [i for i, _ in zip(clean, range(too_many), strict=False)]:
                del self._hot[aggregate_id]
