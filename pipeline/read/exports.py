"""What `foldlog export` writes, and a running pipeline now and then."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ingest.errors import NoRoom, one_line
from pipeline.deployment import Deployment
from pipeline.lock import alone
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
    deployed = Deployment.open(settings)
    settings.protect()
    refusal = f"another export writes to {settings.exported}; wait for it"
    with alone(settings.export_lock, refusal, WAIT_S):
        paths, positions = export_read_models(settings.published, settings.exported)
        return paths + _add(deployed, positions)


def export_changes(deployed: Deployment) -> None:
    """The same where something was published since. Leaves out the log's relations, which take as
    much room as the log, until somebody has asked for them once."""
    settings = deployed.settings
    if is_due(settings.published, settings.exported):
        with alone(settings.export_lock, "another export runs", WAIT_S):
            _, positions = export_read_models(settings.published, settings.exported)
            if dataset.is_there(settings.exported):
                _add(deployed, positions, threads=1)


def _add(deployed: Deployment, until: Positions, threads: int | None = None) -> list[Path]:
    folder = deployed.settings.exported
    try:
        return dataset.append(deployed.domain, deployed.log, until, folder, threads)
    except (OSError, duckdb.Error) as error:
        raise NoRoom(f"the log cannot be written to {folder}: {one_line(error)}") from None
