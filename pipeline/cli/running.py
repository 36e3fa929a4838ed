"""Commands that run for long: the pipeline, its two sides, the demo, the benchmark; and `new`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import TextColumn

from ingest.errors import FoldlogError
from pipeline.cli.flags import Data, DomainName, LogFormat, MetricsPort, Redis, settings_from
from pipeline.cli.progress import progress
from pipeline.cli.tables import print_table
from pipeline.extras.bench.parts import QUICK, Part


def demo(
    data: Data = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many commands.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Continue in the data directory.")] = False,
    orders: Annotated[
        bool, typer.Option("--orders", help="The first baskets as orders, paid and shipped.")
    ] = False,
) -> None:
    """Send a year of real grocery baskets through everything, and ask about them."""
    from pipeline.extras.demo import demo as run_demo

    run_demo(
        settings_from(data=data),
        limit=limit,
        keep=keep,
        orders=orders,
        console=Console(),
        show=print_table,
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


def up(
    data: Data = None,
    redis: Redis = None,
    domain: DomainName = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes [FOLDLOG_WORKERS, cores less one].")
    ] = None,
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

    settings = settings_from(
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

    settings = settings_from(
        data=data, redis_url=redis, domain=domain, metrics_port=metrics_port, log_format=log_format
    )
    raise typer.Exit(min(1, run_work(settings, share or ALL)))


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

    settings = settings_from(
        data=data, redis_url=redis, domain=domain, metrics_port=metrics_port, log_format=log_format
    )
    raise typer.Exit(min(1, run_read(settings)))


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
    """Measure this machine: each figure beside a limit of the same run. Takes ten minutes."""
    from pipeline.extras.bench.run import run as run_bench
    from pipeline.extras.bench.table import WIDTH as BENCH_WIDTH
    from pipeline.extras.bench.table import as_json as as_bench_json
    from pipeline.extras.bench.table import as_table as as_bench_table

    chosen = tuple(Part) if full else parts or QUICK
    with progress(TextColumn("measuring {task.description} …")) as shown:
        task = shown.add_task("", total=None)
        figures = run_bench(chosen, seen=lambda part: shown.update(task, description=part))
    Console(width=BENCH_WIDTH).print(as_bench_table(figures))
    output.write_text(json.dumps(as_bench_json(figures), indent=1) + "\n")
