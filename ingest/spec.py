"""Rules as tests: given(events).when(command).then(events), over the rules of an aggregate.

    an_order = Spec(order)
    an_order.given(OrderPlaced("ada", 4200)).when(pay(4200)).then(OrderPaid(4200))

It needs no test framework; pytest shows what it raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingest.aggregate import Aggregate
from ingest.errors import Rejected


@dataclass(frozen=True)
class Spec:
    """An aggregate with a history."""

    aggregate: Aggregate[Any, Any, Any]
    history: tuple[Any, ...] = ()

    def given(self, *events: Any) -> Spec:
        """The aggregate has these events behind it, and no others."""
        return Spec(self.aggregate, events)

    def when(self, command: Any) -> Decision:
        """A command comes; what it has to do is said next."""
        return Decision(self, command)


@dataclass(frozen=True)
class Decision:
    """A command to an aggregate with a history, not decided yet."""

    spec: Spec
    command: Any

    def _decide(self) -> list[Any]:
        kind = self.spec.aggregate
        return list(kind.decide(kind.fold(self.spec.history), self.command))

    def then(self, *events: Any) -> Spec:
        """The command causes just these events; gives the spec with them in its history.

        Raises `AssertionError` where it does not, and `Rejected` where it is rejected.
        """
        decided = self._decide()
        if decided != list(events):
            raise AssertionError(f"decided {decided}, not {list(events)}")
        return Spec(self.spec.aggregate, (*self.spec.history, *events))

    def then_rejected(self, reason: str) -> None:
        """The command is rejected for just this reason. Raises `AssertionError` where it is not."""
        try:
            decided = self._decide()
        except Rejected as rejected:
            if rejected.reason != reason:
                raise AssertionError(f"rejected for {rejected.reason!r}, not {reason!r}") from None
        else:
            raise AssertionError(f"decided {decided}, not rejected for {reason!r}")
