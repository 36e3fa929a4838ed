"""One domain, as it was when the checked-in log was written, and as it is after three changes.

Since then `price`, in dollars, has become `cents` (version 2), names are upper case (version 3),
and `channel` is new and has a default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ingest import Command, Decider, Domain, Identifier, Upcast

MODELS = Path(__file__).parent / "shop_read_models"
LOG = Path(__file__).parent.parent / "fixtures" / "shop_log"
"""Written with `then`."""


@dataclass(frozen=True, slots=True)
class SoldThen:
    name: str
    price: float


@dataclass(frozen=True, slots=True)
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
    type: Literal["Sell"] = "Sell"
    till: Identifier
    name: str
    cents: int
    channel: str = "web"


def sell(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "Sell", "command_id": str(number), "till": "a", "name": "Tea", **fields}


then = Domain(
    name="shop",
    id_field="till",
    commands=(SellThen,),
    events={"Sold": SoldThen},
    decider=Decider(
        initial=Till(),
        decide=lambda state, c: [SoldThen(c.name, c.price)],
        evolve=lambda state, e: replace(state, sales=state.sales + 1),
    ),
    folded="tills",
    row=lambda state: state,
    row_type=Till,
    read_models=MODELS / "then",
)

now = Domain(
    name="shop",
    id_field="till",
    commands=(Sell,),
    events={"Sold": Sold},
    decider=Decider(
        initial=Till(),
        decide=lambda state, c: [Sold(c.name.upper(), c.cents, c.channel)],
        evolve=evolve,
    ),
    folded="tills",
    row=lambda state: state,
    row_type=Till,
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
