"""One domain, as it was when the checked-in log was written, and as it is after three changes.

Since then `price`, in dollars, has become `cents` (version 2), names are upper case (version 3),
and `channel` is new and has a default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ingest import Aggregate, Command, Domain, Identifier, Upcast, event

MODELS = Path(__file__).parent / "shop_read_models"
LOG = Path(__file__).parent.parent / "fixtures" / "shop_log"
"""Written with `then`."""


@event(name="Sold")
class SoldThen:
    name: str
    price: float


@event
class Sold:
    schema_version: ClassVar[int] = 3
    name: str
    cents: int
    channel: str = "web"


@dataclass(frozen=True, slots=True)
class Till:
    sales: int = 0
    takings: int = 0
    channels: str = ""


def evolve(state: Till, event: Sold) -> Till:
    return Till(state.sales + 1, state.takings + event.cents, state.channels + event.channel[0])


class SellThen(Command):
    type: Literal["Sell"] = "Sell"
    till: Identifier
    name: str
    price: float


class Sell(Command):
    till: Identifier
    name: str
    cents: int
    channel: str = "web"


def sell(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "Sell", "command_id": str(number), "till": "a", "name": "Tea", **fields}


def decide_then(state: Till, command: SellThen) -> list[SoldThen]:
    return [SoldThen(command.name, command.price)]


def evolve_then(state: Till, event: SoldThen) -> Till:
    return replace(state, sales=state.sales + 1)


def decide(state: Till, command: Sell) -> list[Sold]:
    return [Sold(command.name.upper(), command.cents, command.channel)]


till_then = Aggregate(
    name="till", key="till", initial=Till(), decide=decide_then, evolve=evolve_then, table="tills"
)
then = Domain("shop", (till_then,), read_models=MODELS / "then")

till = Aggregate(
    name="till", key="till", initial=Till(), decide=decide, evolve=evolve, table="tills"
)
now = Domain(
    "shop",
    (till,),
    read_models=MODELS / "now",
    upcasts=(
        Upcast(
            event_type="Sold",
            from_version=1,
            columns={"cents": "round(price * 100)::BIGINT"},
            retired={"price": float},
        ),
        Upcast(event_type="Sold", from_version=2, columns={"name": "upper(name)"}),
    ),
)
