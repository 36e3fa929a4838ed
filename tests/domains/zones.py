"""The shopping cart with read models that read times in zones."""

from __future__ import annotations

from pathlib import Path

from ingest import Domain
from ingest.cart import cart

zones = Domain(
    **{
        **{f: getattr(cart, f) for f in cart.__dataclass_fields__ if f != "event_types"},
        "read_models": Path(__file__).parent / "zones_read_models",
    }
)
