"""given(events).when(command).then(events), over the pure functions of a decider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ingest.decider import Decider
from ingest.errors import Rejected


@dataclass(frozen=True)
class Spec:
    """A decider with a history."""

    decider: Decider[Any, Any, Any]
    history: tuple[Any, ...] = ()

    def given(self, *events: Any) -> Spec:
        return Spec(self.decider, events)

    def when(self, command: Any) -> Decision:
        return Decision(self, command)


@dataclass(frozen=True)
class Decision:
    spec: Spec
    command: Any

    def _decide(self) -> list[Any]:
        decider = self.spec.decider
        return list(decider.decide(decider.fold(self.spec.history), self.command))

    def then(self, *events: Any) -> Spec:
        """The command causes just these events; gives the spec with them in its history."""
        assert self._decide() == list(events)
        return Spec(self.spec.decider, (*self.spec.history, *events))

    def then_rejected(self, reason: str) -> None:
        with pytest.raises(Rejected) as caught:
            self._decide()
        assert caught.value.reason == reason
