"""What may be measured, by name."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """A part of the benchmark, as the command line names it."""

    throughput = "throughput"
    delays = "delays"
    rebuilds = "rebuilds"
    reactions = "reactions"
    live = "live"
    flat = "flat"


QUICK = (Part.throughput, Part.delays, Part.rebuilds, Part.reactions)
"""What a run of ten minutes measures; the others take a log of 10 to 50 million events."""
