"""The shopping cart with read models that read times in zones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingest.shop import shop

zones = replace(shop, read_models=Path(__file__).parent / "zones_read_models")
