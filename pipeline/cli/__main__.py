"""`python -m pipeline.cli`: the command line without its console script."""

from __future__ import annotations

from pipeline.cli import main

main()
