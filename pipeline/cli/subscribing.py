"""The command that gives events to other programs: `subscribe`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline.cli.flags import Data, DomainName, settings_from
from pipeline.cli.signals import stop_at_signals


def subscribe(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN|TIME|now",
            help="Begin after the event that had this token, at a time of recording (UTC), or with"
            " what comes from now on; else with the first event.",
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="EVENT", help="Only these event types."),
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only of this kind of aggregate.")
    ] = None,
    aggregate_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this aggregate's, for instance a cart's.")
    ] = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="End where the log ends now.")
    ] = False,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Print events from the log, and go on as they are committed, until Ctrl-C.

    Each is a line with a JSON object: the event, and the token with which to go on after it.
    """
    from pipeline.feed.lines import Lines
    from pipeline.feed.subscription import subscribe as subscribe_to

    subscription = subscribe_to(
        since,
        types=types or [],
        aggregate=aggregate,
        aggregate_id=aggregate_id,
        follow=not no_follow,
        settings=settings_from(data=data, domain=domain),
    )
    stop_at_signals(subscription.stop)
    lines = Lines(subscription.domain)
    output = sys.stdout.buffer  # JSON is UTF-8, whatever the terminal's language
    try:
        for part in subscription.parts():
            for token, event in zip(subscription.tokens(part), lines.of(part.rows), strict=True):
                output.write(f'{{"token": "{token}", "event": {event}}}\n'.encode())
            output.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
