"""The aggregates of a partition: those touched lately in memory, the others in its snapshot."""

from __future__ import annotations

from itertools import islice
from typing import Any, Protocol, TypeAlias

Key: TypeAlias = tuple[str, str]
"""Which aggregate: the name of its kind, and its id."""

Versioned: TypeAlias = tuple[Any, int]
"""An aggregate's state and version."""


class Cold(Protocol):
    """Where aggregates are that are not in memory: the log's, up to `position`."""

    position: int

    def load(self, key: Key) -> Versioned | None: ...


class Aggregates:
    """By key: in memory those touched lately, and all that changed since the snapshot."""

    def __init__(self, snapshot: Cold | None = None) -> None:
        self._snapshot = snapshot
        self._changed: dict[Key, Versioned] = {}
        """Those that no snapshot has as they are now."""
        self._clean: dict[Key, Versioned] = {}
        """Others that were touched lately, none that is among the changed; the oldest first."""
        self._some_are_cold = snapshot is not None and snapshot.position > 0

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._changed) + len(self._clean)

    def get(self, key: Key) -> Versioned | None:
        """Its state and version, None where it has no events; then it is in memory."""
        found = self._changed.get(key) or self._clean.get(key)
        if found is None and self._some_are_cold and self._snapshot is not None:
            found = self._snapshot.load(key)
            if found is not None:
                self._clean[key] = found
        return found

    def update(self, changed: dict[Key, Versioned]) -> None:
        """They are now like this."""
        self._changed.update(changed)
        self._no_longer_clean(changed)

    def take_changed(self) -> dict[Key, Versioned]:
        """What the next snapshot has to write."""
        changed, self._changed = self._changed, {}
        self._clean.update(changed)
        return changed

    def put_back(self, changed: dict[Key, Versioned]) -> None:
        """It could not be written."""
        self._changed = {**changed, **self._changed}
        self._no_longer_clean(changed)

    def _no_longer_clean(self, changed: dict[Key, Versioned]) -> None:
        if self._clean:
            for key in changed:
                self._clean.pop(key, None)

    def forget(self, most: int) -> None:
        """Keep at most so many in memory, besides those that no snapshot has; the oldest go."""
        too_many = len(self) - most
        if too_many > 0:
            self._some_are_cold = True
            for key in [*islice(self._clean, too_many)]:
                del self._clean[key]
