"""A mistake in the domain's code, as an error that says where."""

from __future__ import annotations

import traceback

from ingest.columns.column import Misfit
from ingest.errors import DomainFailed, DomainInvalid


def failed(what: str, error: Exception, stream_id: str | None = None) -> DomainFailed:
    """A mistake in the domain's code. Not a rejection: the command is handled when it is mended."""
    # The error's own text may hold a payload, and this message is logged; ours does not.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    why = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
    return DomainFailed(
        f"{what}{f' (stream id {stream_id})' if stream_id else ''} failed:"
        f" {error if isinstance(error, Misfit | DomainInvalid) else why};"
        " nothing is lost: mend the domain's code, and start again",
        stream_id,
    )
