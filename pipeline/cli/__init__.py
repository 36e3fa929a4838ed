"""The command line: one word, one job. Errors that a user can cause are one line.

A command imports what it needs when it runs: loading everything takes longer than most commands do.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from ingest.errors import CommandInvalid, FoldlogError, one_line
from pipeline.extras.bench.parts import QUICK, Part

if TYPE_CHECKING:
    import duckdb

    from ingest.domain import Domain
    from pipeline.settings import Settings

app = typer.Typer(
    name="foldlog",
    help="CQRS and event sourcing as one small system: Redis Streams in, Parquet log, DuckDB out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Data = Annotated[Path | None, typer.Option(help="The data directory [FOLDLOG_DATA, ./data].")]
Redis = Annotated[
    str | None, typer.Option("--redis", help="A running Redis [FOLDLOG_REDIS_URL, else our own].")
]
DomainName = Annotated[
    str | None, typer.Option("--domain", help="module:attribute [FOLDLOG_DOMAIN, the cart].")
]


SENT_TOGETHER = 1000
"""Lines that `send` sends at a time, as `Producer.send_many` does."""

AS_IT_IS = {"arrow_lossless_conversion": True}
"""So that an answer keeps its types on its way to a file."""

SHOWN = 10
"""Commands that a dry run prints."""


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Contract(StrEnum):
    asyncapi = "asyncapi"
    commands = "commands"
    events = "events"
    outcomes = "outcomes"


class Lines(StrEnum):
    text = "text"
    json = "json"


class Moment(StrEnum):
    recorded_at = "recorded_at"
    occurred_at = "occurred_at"


MetricsPort = Annotated[
    int | None,
    typer.Option(help="Prometheus metrics: read here, worker i on 1 + i more [0, none]."),
]
LogFormat = Annotated[
    Lines | None, typer.Option(help="Of standard error [FOLDLOG_LOG_FORMAT, text].")
]


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write it as 2017-06-30T12:00") from None


def _settings(**given: Any) -> Settings:
    """Flags, else the environment, else defaults."""
    from pipeline.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except UnicodeDecodeError:
        raise FoldlogError("the file .env is not UTF-8 text; mend it or remove it") from None


def _progress(*columns: ProgressColumn | str) -> Progress:
    """How far long work is: for a person who watches, and gone when it is done."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@app.command(epilog="Example: `foldlog demo --limit 100000`")
def demo(
    data: Data = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many commands.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Continue in the data directory.")] = False,
) -> None:
    """Send a year of real grocery baskets through everything, and ask about them."""
    from pipeline.extras.demo import demo as run_demo

    run_demo(_settings(data=data), limit=limit, keep=keep, console=Console())


@app.command(
    epilog="Examples: `foldlog new orders && cd orders && foldlog up`,"
    " `foldlog new shipping --aggregate parcel`"
)
def new(
    name: Annotated[str, typer.Argument(help="A new Python package's name, in lower case.")],
    aggregate: Annotated[
        str | None, typer.Option(help="What its rules are about, one of them; else from NAME.")
    ] = None,
) -> None:
    """Write a folder with a small domain of your own that runs, to be changed from there."""
    from pipeline.extras.new import new as write_starter

    for path in write_starter(name, Path(), aggregate):
        typer.echo(path)
    typer.echo(f"\nNext:\n  cd {name}\n  pytest\n  foldlog up")


@app.command(epilog="Example: `foldlog up --data /srv/shop --workers 2`")
def up(
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
    workers: Annotated[int | None, typer.Option(help="Processes [FOLDLOG_WORKERS, 1].")] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Fixed when the log is made [FOLDLOG_PARTITIONS, 4].")
    ] = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what goes wrong.")] = False,
) -> None:
    """Run the pipeline until Ctrl-C: commands in, log and read models out."""
    from pipeline import messages
    from pipeline.operate.up import up as run_up

    settings = _settings(
        data=data,
        redis_url=redis,
        domain=domain,
        workers=workers,
        partitions=partitions,
        metrics_port=metrics_port,
        log_format=log_format,
    )
    messages.set_up(settings)

    def ready(url: str) -> None:
        if settings.log_format == "json":
            logging.getLogger("foldlog").info("ready: commands go to %s; Ctrl-C stops", url)
        elif not quiet:
            typer.echo(f"commands   {url}")
            typer.echo(f"event log  {settings.events}")
            typer.echo(f"read it    {settings.published}")
            typer.echo("Ctrl-C stops.")
            sys.stdout.flush()

    try:
        run_up(settings, ready)
    except FoldlogError as error:
        if settings.log_format != "json":
            raise
        logging.getLogger("foldlog").error("%s", error)
        raise typer.Exit(1) from None


@app.command(epilog="Example: `foldlog work --share 0/2`")
def work(
    share: Annotated[
        str | None,
        typer.Option(help="Which partitions: I/N are those with p % N == I; by default all."),
    ] = None,
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
) -> None:
    """Run the write side of a pipeline: commands in, decided and committed to the log.

    `foldlog up` runs one for each of its workers. By hand, run one for each share, on any host.
    """
    from pipeline.engine.programs import ALL
    from pipeline.operate.work import work as run_work

    settings = _settings(
        data=data, redis_url=redis, domain=domain, metrics_port=metrics_port, log_format=log_format
    )
    raise typer.Exit(min(1, run_work(settings, share or ALL)))


@app.command(epilog="Example: `foldlog read`")
def read(
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = None,
) -> None:
    """Run the read side of a pipeline: it follows the log, keeps the read models, publishes them.

    `foldlog up` runs one. It may be away for as long as it likes: outcomes do not wait for it.
    """
    from pipeline.operate.read import read as run_read

    settings = _settings(
        data=data, redis_url=redis, domain=domain, metrics_port=metrics_port, log_format=log_format
    )
    raise typer.Exit(min(1, run_read(settings)))


@app.command(
    epilog='Example: `echo \'{"type": "CheckOut", "cart_id": "7"}\' | foldlog send - --wait`'
)
def send(
    file: Annotated[str, typer.Argument(help="JSON lines, a command each; - is standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Print each command's outcome.")] = False,
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
) -> None:
    """Send commands from a file or from standard input."""
    from ingest.producer import Producer

    settings = _settings(data=data, redis_url=redis, domain=domain)
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


@app.command(
    epilog='Examples: `foldlog query "SELECT * FROM carts LIMIT 5"`,'
    " `foldlog query TopProducts --param limit=3 --as-of 2017-06-30 --by occurred_at`"
)
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
    settings = _settings(data=data, domain=domain)
    sql, parameters = _question(settings, asked, param or [])
    try:
        if as_of is None:
            with connect(settings.published, config=AS_IT_IS) as db:
                _print_answer(db.sql(sql, params=parameters), output)
        else:
            past = read_models_as_of(
                as_of, by=by.value, query=sql, settings=settings, sandbox=True, config=AS_IT_IS
            )
            _print_answer(ask_in_sandbox(past, sql, parameters), output)
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


def _print_answer(answer: duckdb.DuckDBPyRelation, output: Format) -> None:
    from pipeline.extras.demo import as_table
    from projections.session import session
    from projections.sql import quoted

    if output is Format.table:
        Console().print(as_table(answer))
        return
    options = {
        Format.csv: "FORMAT csv, HEADER",
        Format.json: "FORMAT json, ARRAY true",
        Format.parquet: "FORMAT parquet",
    }
    if output is Format.parquet and sys.stdout.isatty():
        raise FoldlogError("Parquet is binary; send it to a file: foldlog query … > answer.parquet")
    # Who asks cannot write. And DuckDB would cut what stdout appends to.
    with session() as writing, tempfile.NamedTemporaryFile() as file:
        writing.register("answer", answer.to_arrow_reader())
        shown = _texts("answer", answer) if output is Format.json else "FROM answer"
        writing.execute(f"COPY ({shown}) TO {quoted(file.name)} ({options[output]})")
        with open(file.name, "rb") as written:
            sys.stdout.buffer.writelines(written)


def _texts(relation: str, answer: duckdb.DuckDBPyRelation) -> str:
    """A SELECT of bytes as the text that they are; of others, with DuckDB's \\x for each."""
    from projections.sql import named

    replaced = []
    for name, kind in zip(answer.columns, answer.types, strict=True):
        if str(kind) == "BLOB":
            column = named(name)
            text = f"coalesce(try(decode({column})), CAST({column} AS VARCHAR))"
            replaced.append(f"{text} AS {column}")
    return (
        f"SELECT * REPLACE ({', '.join(replaced)}) FROM {relation}"
        if replaced
        else f"FROM {relation}"
    )


@app.command(epilog="Example: `foldlog history 7`")
def history(
    aggregate_id: Annotated[str, typer.Argument(metavar="ID", help="For instance a cart's.")],
    output: Annotated[Lines, typer.Option("--format", help="How to print it.")] = Lines.text,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Show one aggregate's life: each event, with the state after it."""
    from pydantic_core import to_json

    from pipeline.operate.history import history as history_of

    happenings = history_of(aggregate_id, _settings(data=data, domain=domain))
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


@app.command(epilog="Examples: `foldlog status --watch`, `foldlog status --check --lag-max 100000`")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds, for --watch.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1, and why, if not healthy.")
    ] = False,
    lag_max: Annotated[
        int | None, typer.Option(min=0, help="Healthy up to this many waiting commands.")
    ] = None,
    freshness_max_s: Annotated[
        float | None, typer.Option(min=0, help="Healthy up to this age of what readers miss.")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option(min=0.01, help="How long Redis may take to answer [2].")
    ] = None,
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
) -> None:
    """Show how far everything is, how fast, and what went wrong."""
    from pipeline.cli.screen import as_screen
    from pipeline.cli.screen import watch as watch_status
    from pipeline.health.status import REDIS_TIMEOUT_S
    from pipeline.health.status import status as status_of

    settings = _settings(data=data, redis_url=redis, domain=domain)
    if watch:
        if as_json or check:
            raise typer.BadParameter("--watch is for people; leave out --json and --check")
        watch_status(settings, every, timeout_s or REDIS_TIMEOUT_S)
        return
    found = status_of(settings, timeout_s or REDIS_TIMEOUT_S)
    reasons = found.reasons(lag_max, freshness_max_s)
    if as_json:
        typer.echo(json.dumps(found.as_json(reasons)))
    elif not check:
        Console().print(as_screen(found))
    if check and reasons:
        raise FoldlogError("not healthy: " + "; ".join(reasons))


@app.command(epilog="Example: `foldlog rebuild product_daily`, or `foldlog rebuild --all`")
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Which; else what is new.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All read models, anew.")] = False,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Build read models from the log, also while the pipeline runs: new, changed or named ones.

    Readers keep the rows that they have until the new ones are complete.
    """
    from pipeline.read.rebuild import rebuild as run_rebuild
    from projections.model import View, read_models

    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        TextColumn("{task.completed:>12,.0f} rows"),
        TextColumn("{task.fields[rate]:>10,.0f}/s"),
        TimeRemainingColumn(),
    )
    with _progress(*columns) as progress:
        task = progress.add_task("", total=None, rate=0)
        started = time.monotonic()

        def seen(name: str, done: int, of: int) -> None:
            rate = done / (time.monotonic() - started)
            progress.update(task, description=name, completed=done, total=of, rate=rate)

        settings = _settings(data=data, domain=domain)
        built = run_rebuild(settings, names or [], everything=everything, seen=seen)
    for model in built:
        rate = model.rows / max(model.seconds, 1e-9)
        typer.echo(
            f"{model.name:20}  {model.rows:>12,} rows in {model.seconds:6.2f} s  {rate:>12,.0f}/s"
        )
    views = [
        model
        for model in read_models(settings.load_domain())
        if isinstance(model, View) and (everything or model.name in (names or []))
    ]
    for view in views:
        reads = ", ".join(sorted(view.reads))
        typer.echo(f"{view.name:20}  a view needs no rows: it shows what is in {reads}")
    if not built and not views:
        typer.echo("every read model is as its declaration says; name one to build it anew")


@app.command(epilog="Example: `foldlog compact`")
def compact(
    kept: Annotated[
        float | None,
        typer.Option("--kept-s", help="Seconds that compacted files stay for readers [a day]."),
    ] = None,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Merge small files of the log into large ones; `foldlog up` does it as it goes."""
    from pipeline.log.log import Log
    from pipeline.read.compaction import compact as run_compact

    settings = _settings(data=data, domain=domain, compact_kept_s=kept)
    log = Log.open(settings.events, domain=settings.load_domain().name)
    settings.protect()
    done = run_compact(settings, log)
    files = sum(len(log.files(partition)) for partition in range(log.partitions))
    typer.echo(
        f"{done.merged:,} files became {done.into:,}, {done.removed:,} were removed;"
        f" the log has {files:,}, and {done.kept.files:,} are kept for readers"
    )


@app.command(epilog="Example: `foldlog export && ls data/parquet`")
def export(data: Data = None, domain: DomainName = None) -> None:
    """Write Parquet files: the read models, and what is new of events, rejections and outcomes.

    `foldlog up` writes them now and then, and at its end; of events, rejections and outcomes once
    this was done here.
    """
    from pipeline.read.exports import export as run_export

    for path in run_export(_settings(data=data, domain=domain)):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")


@app.command(epilog="Examples: `foldlog bench`, `foldlog bench throughput delays`")
def bench(
    parts: Annotated[
        list[Part] | None,
        typer.Argument(metavar="PART", help=f"Of {', '.join(Part)}; else the first three."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="All parts, about 25 minutes.")] = False,
    output: Annotated[Path, typer.Option("--json", help="Where the figures go as JSON.")] = Path(
        "bench.json"
    ),
) -> None:
    """Measure this machine: each figure beside a limit of the same run. Takes four minutes."""
    from pipeline.extras.bench.run import run as run_bench
    from pipeline.extras.bench.table import WIDTH as BENCH_WIDTH
    from pipeline.extras.bench.table import as_json as as_bench_json
    from pipeline.extras.bench.table import as_table as as_bench_table

    chosen = tuple(Part) if full else parts or QUICK
    with _progress(TextColumn("measuring {task.description} …")) as progress:
        task = progress.add_task("", total=None)
        figures = run_bench(chosen, seen=lambda part: progress.update(task, description=part))
    Console(width=BENCH_WIDTH).print(as_bench_table(figures))
    output.write_text(json.dumps(as_bench_json(figures), indent=1) + "\n")


@app.command(epilog="Example: `foldlog verify`")
def verify(data: Data = None, domain: DomainName = None) -> None:
    """Check every file of the log, and the read models against the log."""
    from pipeline.operate.verify import verify as verify_all

    with _progress(*Progress.get_default_columns()) as progress:
        task = progress.add_task("files of the log", total=None)
        found = verify_all(
            _settings(data=data, domain=domain),
            lambda files, of: progress.update(task, completed=files, total=of),
        )
    for line in found.wrong:
        typer.echo(line)
    if found.wrong:
        raise FoldlogError(f"{len(found.wrong)} thing(s) are wrong; the lines above say what")
    typer.echo(
        f"all is well: {found.rows:,} rows in {found.files:,} files,"
        f" {found.models} read models equal the log"
    )


@app.command(
    epilog="Examples: `foldlog schema > asyncapi.json`, `foldlog schema events > events.json`,"
    " `foldlog schema --check events.json`"
)
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
    domain: DomainName = None,
) -> None:
    """Print the domain's contract: AsyncAPI for the streams, JSON Schema for what is in them."""
    from ingest.contract import CONTRACTS

    if check is not None:
        _check_schema(check, _settings(domain=domain).load_domain())
        return
    contract = CONTRACTS[part](_settings(domain=domain).load_domain())
    typer.echo(json.dumps(contract, indent=2, ensure_ascii=False))


def _check_schema(old: Path, domain: Domain) -> None:
    from pipeline.log.compatibility import declared_in, incompatible
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


@app.command(
    epilog="Examples: `foldlog resubmit --where \"reason = 'the cart is empty'\"`,"
    " `foldlog resubmit --stray --yes`"
)
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

    settings = _settings(data=data, redis_url=redis, domain=domain)
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


def main() -> None:
    """The console script: exit code 2 for wrong use, 1 for failure."""
    try:
        app()
    except ValueError as error:
        _wrong_setting(error)
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        print(f"foldlog: {at}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except FoldlogError as error:
        print(f"foldlog: {error}", file=sys.stderr)
        sys.exit(1)
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
    print(f"foldlog: setting {name} (FOLDLOG_{name.upper()}): {first['msg']}", file=sys.stderr)
    sys.exit(2)
