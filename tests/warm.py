"""What a program finds out at its start about the shop alone, found out once for all its forks."""

from __future__ import annotations

import gc

from ingest.loading import load_domain
from pipeline.engine.without_pandas import start_without_pandas
from projections.declarations import declarations

start_without_pandas()
declarations(load_domain("ingest.shop:shop"))
gc.freeze()  # or each fork would look through all of it, and copy it by that
