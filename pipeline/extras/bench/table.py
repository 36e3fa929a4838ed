"""What was measured, beside its limit, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich import box
from rich.table import Table

WIDTH = 200
"""Of the screen that a table is drawn for, so that no figure is cut short."""

LIBRARIES = ("bytewax", "duckdb", "pyarrow", "pydantic", "redis")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and what the same run gave for its limit, in the same `unit`."""

    what: str
    value: float
    unit: str
    beside: str = ""
    limit: float | None = None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the limit."""
        return self.value / self.limit if self.limit else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def as_json(figures: list[Figure]) -> dict[str, Any]:
    """The machine, and each figure with its ratio."""
    rows = [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
    return {"machine": machine(), "figures": rows}


def as_table(figures: list[Figure]) -> Table:
    """Figures for a terminal, with the machine that they were measured on."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=", ".join(f"{name} {value}" for name, value in machine().items()),
        caption_justify="left",
    )
    for name in ("what", "measured", "beside", "", "ratio", "goal"):
        right = name in ("measured", "", "ratio")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for figure in figures:
        limit = "" if figure.limit is None else _quantity(figure.limit, figure.unit)
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        measured = _quantity(figure.value, figure.unit)
        table.add_row(figure.what, measured, figure.beside, limit, ratio, figure.goal)
    return table


def _quantity(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
    return number + unit if unit.startswith("/") else f"{number} {unit}"
