"""What was measured, beside its limit, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.table import Table

LIBRARIES = ("bytewax", "duckdb", "pyarrow", "pydantic", "redis")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, in `unit`, and what the same run gave for its limit."""

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
    table = Table(caption=", ".join(f"{name} {value}" for name, value in machine().items()))
    for name in ("what", "measured", "beside", "ratio", "goal"):
        table.add_column(name, justify="right" if name in ("measured", "ratio") else "left")
    for figure in figures:
        beside = figure.beside
        if figure.limit is not None:
            beside += f": {_number(figure.limit)}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        measured = f"{_number(figure.value)} {figure.unit}"
        table.add_row(figure.what, measured, beside, ratio, figure.goal)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
