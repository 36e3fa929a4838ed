"""Rebuilt read models take the place of those that readers see."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest import crash
from ingest.errors import DataInUse, FoldlogError
from pipeline.log.log import Log
from pipeline.replay.states import Refold
from pipeline.settings import Settings
from projections.held import held_in
from projections.model import View, read_models
from projections.publish import Publisher
from projections.writer import Writer

TAKE_OVER_S = 60
"""How long a running pipeline may take until it begins to take the rebuilt rows over."""


def _hand_over(settings: Settings, waiting: Callable[[], None]) -> None:
    """Until the rebuilt file has been taken over, by a running pipeline or else here."""
    deadline = time.monotonic() + TAKE_OVER_S
    while settings.rebuilt.exists():
        waiting()
        try:
            with settings.alone():
                take_over(settings)
        except DataInUse:
            if time.monotonic() > deadline:
                raise FoldlogError(
                    f"the pipeline has not taken over {settings.rebuilt};"
                    " it will when it next starts"
                ) from None
            time.sleep(0.1)


def take_over(settings: Settings) -> None:
    """What the pipeline does with a rebuilt file, where none runs."""
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    with held_in(settings.rebuilt) as held:
        rebuilt = {name for name, _ in held.models()}
    others = {m.name for m in read_models(domain) if not isinstance(m, View)} - rebuilt
    path = settings.data / "writer.duckdb"
    writer = Writer(path, domain, log, Refold(domain, log), only=others)
    writer.catch_up()
    writer.adopt(settings.rebuilt)
    Publisher(writer, settings.published, 0).publish()
    writer.close()
    crash.point("hand_over.to_remove")
    settings.rebuilt.unlink()
    crash.point("hand_over.removed")
