"""Commands that ask: `query`, `history`, `schema`."""

from __future__ import annotations

import json
import signal
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.errors import FoldlogError, one_line
from pipeline.cli.flags import Data, DomainName, Lines, settings_from
from pipeline.cli.tables import Format, print_answer

if TYPE_CHECKING:
    from ingest.domain import Domain
    from pipeline.settings import Settings

AS_IT_IS = {"arrow_lossless_conversion": True}
"""DuckDB's setting with which an answer keeps its types on its way to a file."""


class Contract(StrEnum):
    """Parts of a domain's contract."""

    asyncapi = "asyncapi"
    commands = "commands"
    events = "events"
    outcomes = "outcomes"


class Moment(StrEnum):
    """The time of a command that `--as-of` looks at."""

    recorded_at = "recorded_at"
    occurred_at = "occurred_at"


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write it as 2017-06-30T12:00") from None


def query(
    asked: Annotated[
        str, typer.Argument(metavar="SQL|NAME", help="A SELECT, or the name of a typed query.")
    ],
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for a typed query; any number of them.")
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(parser=_time, metavar="TIME", help="Ask about that moment (UTC)."),
    ] = None,
    by: Annotated[Moment, typer.Option(help="What --as-of looks at.")] = Moment.recorded_at,
    output: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Ask the published read models, or with --as-of the log about any moment."""
    import duckdb

    from pipeline.operate.as_of import as_of as read_models_as_of
    from projections.connection import connect
    from projections.sandbox import sql as ask_in_sandbox

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # DuckDB may not see Ctrl-C before its answer
    settings = settings_from(data=data, domain=domain)
    sql, parameters = _question(settings, asked, param or [])
    try:
        if as_of is None:
            with connect(settings.published, config=AS_IT_IS) as db:
                print_answer(db.sql(sql, params=parameters), output)
        else:
            past = read_models_as_of(
                as_of, by=by.value, query=sql, settings=settings, sandbox=True, config=AS_IT_IS
            )
            print_answer(ask_in_sandbox(past, sql, parameters), output)
    except duckdb.Error as error:
        raise FoldlogError(one_line(error)) from None


def _question(
    settings: Settings, asked: str, given: list[str]
) -> tuple[str, dict[str, Any] | None]:
    """The SQL, and the parameters of a typed query."""
    from pydantic import ValidationError

    from projections.queries import queries

    if not asked.isidentifier():
        if given:
            raise typer.BadParameter("--param is for typed queries; write values into the SQL")
        return asked, None
    known = queries(settings.load_domain())
    if asked not in known:
        raise FoldlogError(f"there is no query {asked}; there are {', '.join(sorted(known))}")
    parts = [text.partition("=") for text in given]
    try:
        query = known[asked].model_validate_strings({name: value for name, _, value in parts})
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        fields = ", ".join(known[asked].model_fields)
        raise FoldlogError(f"{asked}: {'; '.join(reasons)} (it takes {fields})") from None
    return query.sql, query.parameters()


def history(
    aggregate_id: Annotated[str, typer.Argument(metavar="ID", help="For instance a cart's.")],
    aggregate: Annotated[
        str | None, typer.Option(help="Its kind, where several have that id: cart, for instance.")
    ] = None,
    output: Annotated[Lines, typer.Option("--format", help="How to print it.")] = Lines.text,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Show one aggregate's life: each event, with the state after it."""
    from pydantic_core import to_json

    from pipeline.operate.history import history as history_of

    settings = settings_from(data=data, domain=domain)
    happenings = history_of(aggregate_id, settings, aggregate=aggregate)
    if output is Lines.json:
        for happening in happenings:
            typer.echo(to_json(happening).decode())
        return
    for happening in happenings:
        event, state = (
            " ".join(f"{name}={value}" for name, value in fields.items())
            for fields in (happening.event, happening.state)
        )
        when = f"{happening.occurred_at:%Y-%m-%d %H:%M:%S}"
        typer.echo(f"{happening.version:>6}  {when}  {happening.event_type} {event}")
        typer.echo(f"{'':6}  → {state}")


def schema(
    part: Annotated[
        Contract, typer.Argument(help="The AsyncAPI document, or the JSON Schema of a part.")
    ] = Contract.asyncapi,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json",
            help="Exit code 1, and the Upcasts to write, if the domain does not read events of the"
            " code that printed this.",
        ),
    ] = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Instead the whole process, drawn in Mermaid.")
    ] = False,
    domain: DomainName = None,
) -> None:
    """Print the domain's contract: AsyncAPI for the streams, JSON Schema for what is in them."""
    from ingest.contract import CONTRACTS
    from ingest.graph import mermaid

    if graph:
        typer.echo(mermaid(settings_from(domain=domain).load_domain()))
        return
    if check is not None:
        _check_schema(check, settings_from(domain=domain).load_domain())
        return
    contract = CONTRACTS[part](settings_from(domain=domain).load_domain())
    typer.echo(json.dumps(contract, indent=2, ensure_ascii=False))


def _check_schema(old: Path, domain: Domain) -> None:
    from pipeline.log.compatibility import incompatible
    from pipeline.log.declared import declared_in
    from projections.upcast import check_upcasts

    declarations = declared_in(old)
    check_upcasts(domain)
    wrong = incompatible(domain, declarations, str(old))
    for line in wrong:
        typer.echo(line)
    if wrong:
        raise FoldlogError(
            f"{len(wrong)} event type(s) have changed; the lines above say what to write"
        )
    typer.echo(f"compatible: the domain reads the {len(declarations)} event types of {old}")
