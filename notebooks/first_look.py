import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Foldlog: a first look")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # A first look

    Commands went in, events came out, and read models follow them. This notebook opens the
    published read models, which are one DuckDB file, and looks around. Money is in cents there,
    and times are in UTC.
    """)
    return


@app.cell
def _():
    from datetime import UTC, datetime

    import marimo as mo

    from ingest import NotAvailable
    from pipeline.settings import Settings
    from projections import connect

    return NotAvailable, Settings, UTC, connect, datetime, mo


@app.cell
def _(NotAvailable, Settings, connect, mo):
    settings = Settings()  # FOLDLOG_DATA in the environment names another data directory
    try:
        read_models = connect(settings.published, sandbox=False)
    except NotAvailable:
        mo.stop(
            True,
            mo.callout(
                mo.md(
                    f"Nothing is published in `{settings.data}` yet. Run `make demo`, or start"
                    " `foldlog up` and send commands. Then run this notebook again."
                ),
                kind="warn",
            ),
        )
    db = read_models.newest
    return db, read_models


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## How fresh is it?

    While a pipeline runs, the file is replaced within a second of new events.
    """)
    return


@app.cell
def _(UTC, datetime, db, mo, read_models):
    counted = "SELECT count(*), max(recorded_at) FROM"
    [(events, last_event)] = db.execute(f"{counted} events").fetchall()
    [(rejections, _)] = db.execute(f"{counted} rejections").fetchall()
    published = datetime.fromtimestamp(read_models.published_ns / 1e9, UTC)
    mo.hstack(
        [
            mo.stat(f"{events:,}", label="Events"),
            mo.stat(f"{rejections:,}", label="Commands that came to nothing"),
            mo.stat(
                f"{last_event:%H:%M:%S}" if last_event else "–",
                label="Last event (UTC)",
                caption=f"recorded on {last_event:%Y-%m-%d}" if last_event else "",
            ),
            mo.stat(
                f"{published:%H:%M:%S}",
                label="Published (UTC)",
                caption=f"on {published:%Y-%m-%d}",
            ),
        ],
        widths="equal",
    )
    return (events,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What is in here?

    Each of these can be asked by its name. `events` is the log itself; the others come from it.
    """)
    return


@app.cell
def _(db, mo):
    relations = mo.sql(
        f"""
        SELECT
            table_name AS relation,
            string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
        FROM information_schema.columns
        WHERE table_catalog = 'read_models' AND table_schema = 'main'
        GROUP BY table_name
        ORDER BY table_name
        """,
        output=False,
        engine=db,
    )
    mo.ui.table(relations, wrapped_columns=["columns"], selection=None, page_size=20)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## First queries

    How many carts are open, how many are checked out, and what they are worth in dollars:
    """)
    return


@app.cell
def _(carts, db, mo):
    by_status = mo.sql(
        f"""
        SELECT status, count(*) AS carts, sum(units)::BIGINT AS units,
            (sum(value_cents) / 100)::DECIMAL(18, 2)::DOUBLE AS dollars
        FROM carts
        GROUP BY status
        ORDER BY status
        """,
        engine=db,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The newest events, as the log has them:
    """)
    return


@app.cell
def _(db, events, mo):
    newest = mo.sql(
        f"""
        SELECT recorded_at, event_type, aggregate_id AS cart_id, version, product_id, quantity,
            unit_price_cents
        FROM events
        ORDER BY recorded_at DESC, partition, position DESC
        LIMIT 10
        """,
        engine=db,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    What became of all commands. Each has exactly one outcome:
    """)
    return


@app.cell
def _(db, mo, outcomes):
    by_outcome = mo.sql(
        f"""
        SELECT outcome, count(*) AS commands FROM outcomes GROUP BY outcome ORDER BY outcome
        """,
        engine=db,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Next: `sales.py` for charts, `investigate.py` for one cart and for the past, `live.py` for a
    page that follows a running pipeline.
    """)
    return


if __name__ == "__main__":
    app.run()
