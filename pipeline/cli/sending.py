"""Commands that send: `send`, `resubmit`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.errors import CommandInvalid, FoldlogError
from pipeline.cli.flags import Data, DomainName, Redis, settings_from

if TYPE_CHECKING:
    from pipeline.settings import Settings

SENT_TOGETHER = 1000
"""Lines that `send` sends at a time, as `Producer.send_many` does."""

SHOWN = 10
"""Commands that a dry run prints."""


def send(
    file: Annotated[str, typer.Argument(help="JSON lines, a command each; - is standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Print each command's outcome.")] = False,
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
) -> None:
    """Send commands from a file or from standard input."""
    from ingest.producer import Producer

    settings = settings_from(data=data, redis_url=redis, domain=domain)
    lines = _Lines(file)
    commands = iter(lines)
    with Producer(settings.reachable_redis, settings.load_domain(), retry_s=2) as producer:
        try:
            if not wait:
                typer.echo(f"sent {producer.send_many(commands):,} commands")
                return
            refused = 0
            for first in commands:
                chunk = chain([first], islice(commands, SENT_TOGETHER - 1))
                for outcome in producer.execute_many(chunk, timeout=60):
                    typer.echo(outcome.to_json().decode())
                    refused += outcome.outcome != "accepted"
        except CommandInvalid as error:
            raise FoldlogError(
                f"{file}:{lines.number}: {error}; lines from {lines.together} on are not sent"
            ) from None
        if refused:
            raise FoldlogError(f"{refused:,} command(s) were not accepted; the lines above say why")


class _Lines:
    """The commands in a file. Raises `CommandInvalid` for a line that is none."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.number = 0
        """Of the last line that was read."""
        self.together = 1
        """Of the first line that is sent together with it."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count = 0
        for number, line in enumerate(self._read(), 1):
            self.number = number
            if not line.strip():
                continue
            if count % SENT_TOGETHER == 0:
                self.together = number
            count += 1
            try:
                command = json.loads(line)
            except ValueError as error:
                raise CommandInvalid(f"not JSON ({error})") from None
            if not isinstance(command, dict):
                raise CommandInvalid("not a JSON object")
            yield command

    def _read(self) -> Iterator[bytes]:
        if self._file == "-":
            yield from sys.stdin.buffer
            return
        try:
            with open(self._file, "rb") as lines:
                yield from lines
        except OSError as error:
            raise FoldlogError(f"cannot read {self._file}: {error.strerror}") from None


def resubmit(
    where: Annotated[
        str | None, typer.Option(help="A SQL condition on the columns of `rejections`.")
    ] = None,
    stray: Annotated[
        bool, typer.Option("--stray", help="Commands in streams that no partition has.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Send them; else only say what would be.")
    ] = False,
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
) -> None:
    """Send rejected commands once more, as new commands; or move stray ones where they belong."""
    from ingest.producer import Producer
    from pipeline.operate.resubmit import rejected_commands

    settings = settings_from(data=data, redis_url=redis, domain=domain)
    if stray == (where is not None):
        raise typer.BadParameter("say which commands: either --where SQL or --stray")
    if where is None:
        _move_strays(settings, yes=yes)
        return
    commands, beyond = rejected_commands(settings, where)
    for command in commands[:SHOWN]:
        typer.echo(json.dumps(command))
    if len(commands) > SHOWN:
        typer.echo(f"… and {len(commands) - SHOWN:,} more")
    if beyond:
        typer.echo(f"{beyond:,} cannot be sent again: no JSON object, or kept only in part")
    if not yes:
        typer.echo(f"{len(commands):,} commands would be sent; add --yes to send them")
        return
    with Producer(settings.reachable_redis, settings.load_domain(), retry_s=2) as producer:
        typer.echo(f"sent {producer.send_many(commands):,} commands")


def _move_strays(settings: Settings, *, yes: bool) -> None:
    from pipeline.operate.resubmit import move_strays

    count = 0
    for stream, commands in move_strays(settings, yes=yes):
        typer.echo(f"{stream}  {commands:,} commands")
        count += commands
    if yes:
        typer.echo(f"moved {count:,} commands")
    else:
        typer.echo(f"{count:,} commands would be moved{'; add --yes to move them' * bool(count)}")
