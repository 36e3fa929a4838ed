"""The command line: one word, one job. Errors that a user can cause are one line.

    running      the pipeline, its sides, demo, benchmark, starter
    sending      commands to Redis
    asking       answers from read models, log and domain
    subscribing  events out of the log
    operating    the state, and what an operator does about it
    flags        options that several commands share
    tables       answers on the screen and in files
    progress     how far long work is
    screen       `status` on a terminal

A command imports what it needs when it runs: loading everything takes longer than most commands do.
What may not come in: what a program without a terminal would need.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from ingest.errors import FoldlogError
from pipeline.cli import asking, operating, running, sending, subscribing

app = typer.Typer(
    name="foldlog",
    help="CQRS and event sourcing as one small system: Redis Streams in, Parquet log, DuckDB out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

WORDS: dict[Callable[..., None], str] = {
    running.demo: "Example: `foldlog demo --limit 100000`",
    running.new: "Examples: `foldlog new orders && cd orders && foldlog up`,"
    " `foldlog new shipping --aggregate parcel`",
    running.up: "Example: `foldlog up --data /srv/shop --workers 2`",
    running.work: "Example: `foldlog work --share 0/2`",
    running.read: "Example: `foldlog read`",
    sending.send: "Example:"
    ' `echo \'{"type": "CheckOut", "cart_id": "7"}\' | foldlog send - --wait`',
    asking.query: 'Examples: `foldlog query "SELECT * FROM carts LIMIT 5"`,'
    " `foldlog query TopProducts --param limit=3 --as-of 2017-06-30 --by occurred_at`",
    asking.history: "Example: `foldlog history 7`",
    subscribing.subscribe: "Examples: `foldlog subscribe --type CheckedOut`,"
    " `foldlog subscribe --since 2017-06-30T12:00 --no-follow > events.jsonl`",
    operating.status: "Examples: `foldlog status --watch`,"
    " `foldlog status --check --lag-max 100000`",
    operating.rebuild: "Example: `foldlog rebuild product_daily`, or `foldlog rebuild --all`",
    operating.compact: "Example: `foldlog compact`",
    operating.export: "Example: `foldlog export && ls data/parquet`",
    running.bench: "Examples: `foldlog bench`, `foldlog bench throughput delays`",
    operating.verify: "Example: `foldlog verify`",
    operating.restore: "Examples: `foldlog restore`, `foldlog restore --yes`",
    asking.schema: "Examples: `foldlog schema > asyncapi.json`,"
    " `foldlog schema events > events.json`, `foldlog schema --check events.json`,"
    " `foldlog schema --graph",
    sending.resubmit: "Examples: `foldlog resubmit --where \"reason = 'the cart is empty'\"`,"
    " `foldlog resubmit --stray --yes`",
}
"""Each command in the order of `foldlog --help`, and what its own help ends with."""

for _command, _examples in WORDS.items():
    app.command(epilog=_examples)(_command)


def main() -> None:
    """The console script: exit code 2 for wrong use, 1 for failure, each with one line that says
    what to do.
    """
    try:
        app()
    except ValueError as error:
        _wrong_setting(error)
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        _end(f"{at}{error.strerror or error}")
    except FoldlogError as error:
        _end(str(error))
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of Ctrl-C
            raise
        sys.exit(130)


def _wrong_setting(error: ValueError) -> NoReturn:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    _end(f"setting {name} (FOLDLOG_{name.upper()}): {first['msg']}", code=2)


def _end(line: str, code: int = 1) -> NoReturn:
    print(f"foldlog: {line}", file=sys.stderr)
    sys.exit(code)
