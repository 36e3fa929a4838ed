"""Rebuilt read models take the place of those that readers see."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection

from ingest import crash
from ingest.errors import DataInUse, FoldlogError, ReadModelInvalid
from pipeline.deployment import Deployment
from pipeline.lock import alone
from pipeline.replay.states import Refold
from pipeline.settings import Settings
from projections.held import held_in
from projections.model import View, read_models
from projections.publish import Publisher
from projections.writer import Writer

logger = logging.getLogger("foldlog")

TAKE_OVER_S = 60
"""How long a running pipeline may take until it begins to take the rebuilt rows over."""


def hand_over(deployed: Deployment, waiting: Callable[[], None]) -> None:
    """Until the rebuilt file has been taken over, by a running read side or else here.

    `waiting` is called now and then. Raises `FoldlogError` where the read side does not begin.
    """
    settings = deployed.settings
    deadline = time.monotonic() + TAKE_OVER_S
    while settings.rebuilt.exists():
        waiting()
        try:
            with alone(settings.read_lock, "a read side runs"):
                _take_over_alone(deployed)
        except DataInUse:
            if time.monotonic() > deadline:
                raise FoldlogError(
                    f"the pipeline has not taken over {settings.rebuilt};"
                    " it will when it next starts"
                ) from None
            time.sleep(0.1)


def _take_over_alone(deployed: Deployment) -> None:
    """What the read side does with a rebuilt file, where none runs.

    A file with every read model in it simply becomes the writer's.
    """
    settings, domain = deployed.settings, deployed.domain
    with held_in(settings.rebuilt) as held:
        rebuilt = {name for name, _ in held.models()}
    others = {m.name for m in read_models(domain) if not isinstance(m, View)} - rebuilt
    if others:
        writer = _caught_up(deployed, others)
        take_over(settings, writer, Publisher(writer, settings.published, 0).publish)
    else:
        crash.point("hand_over.to_rename")
        os.replace(settings.rebuilt, settings.writers_file)
        crash.point("hand_over.renamed")
        writer = _caught_up(deployed)
        Publisher(writer, settings.published, 0).publish()
    writer.close()


def _caught_up(deployed: Deployment, only: Collection[str] | None = None) -> Writer:
    settings, domain, log = deployed.settings, deployed.domain, deployed.log
    writer = Writer.open(settings.writers_file, domain, log, Refold(domain, log), only)
    writer.migrate()
    writer.catch_up()
    return writer


def take_over(settings: Settings, writer: Writer, publish: Callable[[], object]) -> None:
    """Let the writer take over what a rebuild has made, publish it, and remove the rebuilt file.

    Nothing is done while the writer is behind that file. Where the declarations of now do not hold,
    the file is removed, and the read models stay as they are.
    """
    try:
        if not writer.adopt(settings.rebuilt):
            return
    except ReadModelInvalid as error:
        logger.warning("the read models stay as they are: %s", error)
    else:
        logger.info("rebuilt read models are taken over")
    publish()
    crash.point("hand_over.to_remove")
    settings.rebuilt.unlink()
    crash.point("hand_over.removed")
