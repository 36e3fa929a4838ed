"""What the other programs are asked about."""

from __future__ import annotations

from typing import Any


def added(cart: int, units: int) -> dict[str, Any]:
    return {
        "type": "AddProduct",
        "command_id": f"{cart}-{units}",
        "cart_id": f"cart {cart}",
        "product_id": f"p{units}",
        "quantity": units,
        "unit_price_cents": 100,
    }


FILLED = [added(cart, units) for cart in range(5) for units in (1, 2 + cart)]
UNITS = {f"cart {cart}": 3 + cart for cart in range(5)}
