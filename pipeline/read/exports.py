"""What `foldlog export` writes, and a running pipeline now and then."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ingest.domain import Domain
from ingest.errors import NoRoom, one_line
from pipeline.lock import alone
from pipeline.log.log import Log
from pipeline.settings import Settings
from projections import dataset
from projections.export import export as export_read_models
from projections.export import is_due
from projections.relations import Positions

WAIT_S = 60


def export(settings: Settings) -> list[Path]:
    """Write the read models, and add what is new to the folders of events, rejections and outcomes.

    Returns the files that were written. Raises `LogMismatch` where there is no log of this domain,
    `NotAvailable` where nothing is published, `NoRoom` where it cannot be written, and `DataInUse`
    while another one exports.
    """
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    settings.protect()
    refusal = f"another export writes to {settings.exported}; wait for it"
    with alone(settings.export_lock, refusal, WAIT_S):
        paths, positions = export_read_models(settings.published, settings.exported)
        return paths + _add(settings, domain, log, positions)


def export_changes(settings: Settings, log: Log) -> None:
    """The same where something was published since. Leaves out the log's relations, which take as
    much room as the log, until somebody has asked for them once."""
    if is_due(settings.published, settings.exported):
        with alone(settings.export_lock, "another export runs", WAIT_S):
            _, positions = export_read_models(settings.published, settings.exported)
            if dataset.is_there(settings.exported):
                _add(settings, settings.load_domain(), log, positions, threads=1)


def _add(
    settings: Settings, domain: Domain, log: Log, until: Positions, threads: int | None = None
) -> list[Path]:
    try:
        return dataset.append(domain, log, until, settings.exported, threads)
    except (OSError, duckdb.Error) as error:
        raise NoRoom(
            f"the log cannot be written to {settings.exported}: {one_line(error)}"
        ) from None
