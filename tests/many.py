"""Many carts, and a file of read models that is replaced while they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import InProcess

MANY = 150
CARTS = 40


def add(cart: int, name: str = "cart") -> dict[str, Any]:
    """One product; each cart has another number of units, by which it is told."""
    return {
        "type": "AddProduct", "command_id": f"{name}-{cart}", "cart_id": f"{name}-{cart}",
        "product_id": "tea", "quantity": cart + 1, "unit_price_cents": 1,
    }  # fmt: skip


@contextmanager
def publishing(pipeline: InProcess) -> Iterator[list[Path]]:
    """Other carts come, and the file is replaced, again and again; what was published."""
    ended = threading.Event()
    published: list[Path] = []

    def publish() -> None:
        while not ended.is_set():
            pipeline.run(0, add(len(published), "later"))
            published.append(pipeline.publish())

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield published
    finally:
        ended.set()
        thread.join()
