"""Commands for who operates a pipeline: `status`, `rebuild`, `compact`, `export`, `verify`."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ingest.errors import FoldlogError
from pipeline.cli.flags import Data, DomainName, Redis, settings_from
from pipeline.cli.progress import progress


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

    settings = settings_from(data=data, redis_url=redis, domain=domain)
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


def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Which; else what is new.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All read models, anew.")] = False,
    from_the_log: Annotated[
        bool, typer.Option("--from-the-log", help="Fold every event; use no snapshot.")
    ] = False,
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
    with progress(*columns) as shown:
        task = shown.add_task("", total=None, rate=0)
        started = time.monotonic()

        def seen(name: str, done: int, of: int) -> None:
            rate = done / (time.monotonic() - started)
            shown.update(task, description=name, completed=done, total=of, rate=rate)

        settings = settings_from(data=data, domain=domain)
        built = run_rebuild(
            settings, names or [], everything=everything, seen=seen, from_the_log=from_the_log
        )
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


def compact(
    kept: Annotated[
        float | None,
        typer.Option("--kept-s", help="Seconds that compacted files stay for readers [a day]."),
    ] = None,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Merge small files of the log into large ones; `foldlog up` does it as it goes."""
    from pipeline.deployment import Deployment
    from pipeline.read.compaction import compact as run_compact

    settings = settings_from(data=data, domain=domain, compact_kept_s=kept)
    log = Deployment.open(settings).log
    settings.protect()
    done = run_compact(settings, log)
    files = sum(len(log.files(partition)) for partition in range(log.partitions))
    typer.echo(
        f"{done.merged:,} files became {done.into:,}, {done.removed:,} were removed;"
        f" the log has {files:,}, and {done.kept.files:,} are kept for readers"
    )


def export(data: Data = None, domain: DomainName = None) -> None:
    """Write Parquet files: the read models, and what is new of events, rejections and outcomes.

    `foldlog up` writes them now and then, and at its end; of events, rejections and outcomes once
    this was done here.
    """
    from pipeline.read.exports import export as run_export

    for path in run_export(settings_from(data=data, domain=domain)):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")


def verify(data: Data = None, domain: DomainName = None) -> None:
    """Check every file of the log, and the read models against the log."""
    from pipeline.operate.verify import verify as verify_all

    with progress(*Progress.get_default_columns()) as shown:
        task = shown.add_task("files of the log", total=None)
        found = verify_all(
            settings_from(data=data, domain=domain),
            lambda files, of: shown.update(task, completed=files, total=of),
        )
    for line in found.wrong:
        typer.echo(line)
    if found.wrong:
        raise FoldlogError(f"{len(found.wrong)} thing(s) are wrong; the lines above say what")
    typer.echo(
        f"all is well: {found.rows:,} rows in {found.files:,} files,"
        f" {found.models} read models equal the log"
    )


def restore(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else only say what would go.")] = False,
    data: Data = None,
    domain: DomainName = None,
) -> None:
    """Cut a log from several backups back to the newest moment at which its partitions fit.

    Read models and snapshots are made again by the next start.
    """
    from pipeline.operate.cut import ASIDE
    from pipeline.operate.cut import restore as restore_log

    cuts = restore_log(settings_from(data=data, domain=domain), yes=yes)
    for cut in cuts:
        first = cut.end.next_position
        typer.echo(
            f"partition {cut.partition}: {cut.until - first:,} of {cut.until:,} rows"
            f" {'went' if yes else 'would go'}, positions {first} to {cut.until - 1}"
        )
    if not cuts:
        typer.echo("every partition has what the others have read: nothing is to be cut")
    elif yes:
        typer.echo(f"the files are beside the others as *{ASIDE}; what they did is undone")
    else:
        typer.echo("say --yes to do it")
