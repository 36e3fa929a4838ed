"""Options that several commands share, and the settings that come of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.errors import FoldlogError

if TYPE_CHECKING:
    from pipeline.settings import Settings

Data = Annotated[Path | None, typer.Option(help="The data directory [FOLDLOG_DATA, ./data].")]
Redis = Annotated[
    str | None, typer.Option("--redis", help="A running Redis [FOLDLOG_REDIS_URL, else our own].")
]
DomainName = Annotated[
    str | None, typer.Option("--domain", help="module:attribute [FOLDLOG_DOMAIN, the shop].")
]


class Lines(StrEnum):
    """How lines are written: for people, or one JSON object each."""

    text = "text"
    json = "json"


MetricsPort = Annotated[
    int | None,
    typer.Option(help="Prometheus metrics: read here, worker i on 1 + i more [0, none]."),
]
LogFormat = Annotated[
    Lines | None, typer.Option(help="Of standard error [FOLDLOG_LOG_FORMAT, text].")
]


def settings_from(**flags: Any) -> Settings:
    """Flags, where they are not None; else the environment, else defaults.

    Raises pydantic's `ValidationError` where a value is wrong.
    """
    from pipeline.engine.without_pandas import start_without_pandas
    from pipeline.settings import Settings

    start_without_pandas()
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except UnicodeDecodeError:
        raise FoldlogError("the file .env is not UTF-8 text; mend it or remove it") from None
