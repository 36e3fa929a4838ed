"""One run of the benchmark: what is measured, in which order, and how much of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.extras.bench import delays, grown, reactions, rebuilds, throughput
from pipeline.extras.bench.parts import Part
from pipeline.extras.bench.table import Figure


def run(parts: Iterable[Part], *, seen: Callable[[str], None]) -> list[Figure]:
    """Measure these parts; `seen` hears of each as it begins."""
    figures: list[Figure] = []
    for part in parts:
        seen(part)
        with tempfile.TemporaryDirectory(prefix="foldlog-bench-") as name:
            folder = Path(name)
            match part:
                case Part.throughput:
                    figures += throughput.measure(folder, 1_000_000)
                case Part.delays:
                    figures += delays.measure(folder, 20)
                case Part.rebuilds:
                    figures += rebuilds.measure(folder, 10_000_000)
                case Part.reactions:
                    figures += reactions.measure(folder, 20)
                case Part.live:
                    figures += grown.measure_live(folder)
                case Part.flat:
                    sizes = [1_000_000, 10_000_000, 50_000_000]
                    figures += grown.measure_flat(folder, sizes)
    return figures
