"""What a depot is asked for, and what that must come to. Imports no product code."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

PRODUCTS = ["tea", "{ada}/tea", "{ada}/milk", "7", "é"]


def trading(count: int, seed: int = 7, products: Sequence[str] = PRODUCTS) -> list[Json]:
    """Seeded commands of both kinds of aggregate for the same ids; some against the rules."""
    rnd = random.Random(seed)
    commands = []
    for number in range(count):
        kind = rnd.choice(["Receive", "Take", "SetPrice"])
        amount = {"cents" if kind == "SetPrice" else "units": rnd.randint(1, 4)}
        named = {"command_id": f"c{number}", "product_id": rnd.choice(products)}
        commands.append({"type": kind, **named, **amount})
    return commands


@dataclass
class Expected:
    """By the kind of aggregate and its id, and outcomes by command id."""

    lives: dict[tuple[str, str], list[tuple[str, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """What has happened: an event's type, and its number."""
    outcomes: dict[str, tuple[str, str | None]] = field(default_factory=dict)

    @property
    def stocks(self) -> dict[str, tuple[int, int]]:
        """Product → units, and how many events."""
        return {i: (units(life), len(life)) for (kind, i), life in self.lives.items()
                if kind == "stock" and life}  # fmt: skip

    @property
    def prices(self) -> dict[str, tuple[int, int, int]]:
        """Product → the last price, the lowest, and how many events."""
        return {i: (life[-1][1], min(cents for _, cents in life), len(life))
                for (kind, i), life in self.lives.items() if kind == "price" and life}  # fmt: skip


def units(life: list[tuple[str, int]]) -> int:
    return sum(number if event == "Received" else -number for event, number in life)


def expect(commands: list[Json]) -> Expected:
    """What they come to, those of one product in the order given."""
    e = Expected()
    for command in commands:
        kind = "price" if command["type"] == "SetPrice" else "stock"
        life = e.lives[kind, command["product_id"]]
        e.outcomes[command["command_id"]] = _handle(life, command)
    return e


def _handle(life: list[tuple[str, int]], command: Json) -> tuple[str, str | None]:
    wanted = command.get("expected_version")
    if wanted is not None and wanted != len(life):
        return "rejected", f"the version is {len(life)}, not {wanted}"
    if command["type"] == "SetPrice":
        if life and life[-1][1] == command["cents"]:
            return "rejected", "that is the price"
        life.append(("PriceSet", command["cents"]))
    elif command["type"] == "Receive":
        life.append(("Received", command["units"]))
    else:
        if command["units"] > units(life):
            return "rejected", f"there are {units(life)}"
        life.append(("Taken", command["units"]))
    return "accepted", None
