"""The shopping cart with other read models, and few carts to look at them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.domain import Domain
from ingest.shop import shop
from tests.oracle import partition_of
from tests.shopping import FEW_CARTS, FEW_PRODUCTS, shopping

PARTITIONS = 2


def cart_with(folder: Path, **files: str) -> Domain:
    """The shopping cart with these .sql files."""
    folder.mkdir(exist_ok=True)
    for left in folder.glob("*.sql"):
        left.unlink()
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(f"-- For a test.\n{sql}")
    return replace(shop, read_models=folder)


def few_carts(seed: int, count: int = 120) -> list[tuple[int, dict[str, Any]]]:
    """Seeded commands of a dozen carts, each with its partition."""
    commands = shopping(count, seed, FEW_CARTS, FEW_PRODUCTS)
    return [(partition_of(c["cart_id"], PARTITIONS), c) for c in commands]
