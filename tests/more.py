"""How much is tried: little in `make test`, more in `make test-long`."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

MORE = int(os.environ.get("FOLDLOG_TEST_MORE", "1"))
"""How many times as many examples as `make test` takes."""


def examples(count: int, **more: Any) -> settings:
    """So many drawn examples, however long each takes."""
    return settings(max_examples=count * MORE, deadline=None, **more)
