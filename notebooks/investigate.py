import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Foldlog: investigate")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Investigate

    The log keeps everything that happened. So one can ask how a cart came to be what it is, what
    was known at a moment in the past, and why commands came to nothing.
    """)
    return


@app.cell
def _():
    from datetime import datetime, time

    import marimo as mo

    from ingest import FoldlogError, NotAvailable
    from pipeline.operate.as_of import as_of
    from pipeline.operate.history import history
    from pipeline.settings import Settings
    from projections import connect

    return (
        FoldlogError,
        NotAvailable,
        Settings,
        as_of,
        connect,
        datetime,
        history,
        mo,
        time,
    )


@app.cell
def _(NotAvailable, Settings, connect, mo):
    settings = Settings()  # FOLDLOG_DATA in the environment names another data directory
    try:
        db = connect(settings.published, sandbox=False).newest
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
    return db, settings


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## One cart's life

    Each event of a cart, and the state after it. The first one shown is the most valuable of all.
    """)
    return


@app.cell
def _(db, mo):
    most_valuable = "SELECT cart_id FROM carts ORDER BY value_cents DESC, cart_id LIMIT 1"
    found = db.execute(most_valuable).fetchall()
    cart_id = mo.ui.text(value=found[0][0] if found else "", label="Cart")
    cart_id
    return (cart_id,)


@app.cell
def _(FoldlogError, cart_id, history, mo, settings):
    try:
        happenings = history(cart_id.value, settings)
    except FoldlogError as error:
        mo.stop(True, mo.callout(str(error)))
    mo.ui.table(
        [
            {
                "version": h.version,
                "occurred_at": h.occurred_at,
                "event": h.event_type,
                "product": h.event.get("product_id", ""),
                "quantity": h.event.get("quantity"),
                "status after": h.state["status"],
                "units after": h.state["units"],
                "dollars after": h.state["value_cents"] / 100,
            }
            for h in happenings
        ],
        selection=None,
        page_size=10,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A moment in the past

    The read models as they stand when only what had occurred by the end of a day is counted. They
    are built from the log, into memory. Here are the top products of then, beside today's ranks.
    """)
    return


@app.cell
def _(db, mo):
    [(first, last)] = db.execute("SELECT min(day), max(day) FROM sales_daily").fetchall()
    mo.stop(first is None, mo.callout("Nothing has been sold yet."))
    day = mo.ui.date(start=first, stop=last, value=first + (last - first) / 2, label="Day (UTC)")
    day
    return (day,)


@app.cell
def _(as_of, datetime, day, settings, time):
    past = as_of(
        datetime.combine(day.value, time.max),
        by="occurred_at",
        query="SELECT * FROM product_daily",
        settings=settings,
    )
    return (past,)


@app.cell
def _(day, db, mo, past):
    revenue = "SELECT coalesce(sum(revenue_cents), 0)::BIGINT FROM product_daily"
    [(then,)] = past.execute(revenue).fetchall()
    [(now,)] = db.execute(revenue).fetchall()
    mo.hstack(
        [
            mo.stat(f"${then / 100:,.2f}", label=f"Revenue up to {day.value}"),
            mo.stat(f"${now / 100:,.2f}", label="Revenue of all that is in the log"),
        ],
        justify="start",
        gap=3,
    )
    return


@app.cell
def _(mo, past, product_daily):
    top_then = mo.sql(
        f"""
        SELECT row_number() OVER (ORDER BY sum(revenue_cents) DESC, product_id) AS rank_then,
            product_id, sum(revenue_cents)::DOUBLE / 100 AS dollars_then
        FROM product_daily
        GROUP BY product_id
        ORDER BY rank_then
        LIMIT 10
        """,
        output=False,
        engine=past,
    )
    return (top_then,)


@app.cell
def _(db, mo, product_daily):
    ranks = mo.sql(
        f"""
        SELECT row_number() OVER (ORDER BY sum(revenue_cents) DESC, product_id) AS rank_now,
            product_id, sum(revenue_cents)::DOUBLE / 100 AS dollars_now
        FROM product_daily
        GROUP BY product_id
        """,
        output=False,
        engine=db,
    )
    return (ranks,)


@app.cell
def _(mo, ranks, top_then):
    mo.ui.table(top_then.join(ranks, on="product_id", how="left").sort("rank_then"), selection=None)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Why commands came to nothing

    A command is `rejected` by a rule, or `unreadable`. Both are in the log, with the reason.
    """)
    return


@app.cell
def _(db, mo, rejection_reasons):
    reasons = mo.sql(
        f"""
        SELECT
            CASE WHEN unreadable THEN 'unreadable' ELSE 'rejected' END AS outcome, reason,
            sum(commands)::BIGINT AS commands, max(last_at) AS last_at,
            arg_max(last_command_id, last_at) AS last_command_id
        FROM rejection_reasons
        GROUP BY ALL
        ORDER BY commands DESC, reason
        """,
        engine=db,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The newest of them, with the bytes that were sent. `foldlog resubmit` sends such commands once
    more.
    """)
    return


@app.cell
def _(db, mo, rejections):
    rejected = mo.sql(
        f"""
        SELECT recorded_at, aggregate_id AS cart_id, command_id, reason,
            replace(payload::VARCHAR, '\\x22', '"') AS payload
        FROM rejections
        ORDER BY recorded_at DESC, partition, position DESC
        LIMIT 10
        """,
        engine=db,
    )
    return


if __name__ == "__main__":
    app.run()
