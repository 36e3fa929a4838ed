import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Foldlog: live")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Live

    A running pipeline, as it goes. The page looks again every two seconds, by itself.
    """)
    return


@app.cell
def _():
    import time
    from itertools import pairwise

    import altair as alt
    import duckdb
    import marimo as mo
    import polars as pl

    from ingest import FoldlogError, NotAvailable
    from pipeline.extras.baskets import transactions
    from pipeline.health.status import status
    from pipeline.settings import Settings
    from projections import connect

    return (
        FoldlogError,
        NotAvailable,
        Settings,
        alt,
        connect,
        duckdb,
        mo,
        pairwise,
        pl,
        status,
        time,
        transactions,
    )


@app.cell
def _(Settings, mo):
    settings = Settings()  # FOLDLOG_DATA in the environment names another data directory
    refresh = mo.ui.refresh(options=["1s", "2s", "5s", "30s"], default_interval="2s")
    get_samples, set_samples = mo.state([])
    refresh
    return get_samples, refresh, set_samples, settings


@app.cell
def _(
    FoldlogError,
    connect,
    duckdb,
    mo,
    refresh,
    set_samples,
    settings,
    status,
    time,
):
    refresh
    try:
        now = status(settings)
        db = connect(settings.published, sandbox=False).newest
    except (FoldlogError, duckdb.Error):
        mo.stop(
            True,
            mo.callout(
                mo.md(
                    f"Nothing is published in `{settings.data}` yet. Start `foldlog up`, or"
                    " `make demo`; this page looks again by itself."
                ),
                kind="warn",
            ),
        )
    # Each command of a shopping cart comes to one row of the log: an event, or a rejection.
    commands = sum(p.position for p in now.partitions)
    set_samples(lambda seen: [*seen, (time.time(), commands, now.lag)][-150:])
    return commands, db, now


@app.cell
def _(get_samples, pairwise, pl):
    samples = pl.DataFrame(
        [
            {
                "at": at,
                "rate": (count - count_before) / (at - began),
                "lag": lag,
            }
            for (began, count_before, _), (at, count, lag) in pairwise(get_samples())
        ],
        schema={"at": pl.Float64, "rate": pl.Float64, "lag": pl.Int64},
    ).with_columns(at=pl.from_epoch((pl.col("at") * 1000).cast(pl.Int64), time_unit="ms"))
    return (samples,)


@app.cell
def _(db, mo, rejection_reasons, sales_daily):
    sums = mo.sql(
        f"""
        SELECT
            (SELECT coalesce(sum(commands), 0)::BIGINT FROM rejection_reasons) AS rejections,
            (SELECT coalesce(sum(revenue_cents), 0)::BIGINT FROM sales_daily) AS cents
        """,
        output=False,
        engine=db,
    )
    return (sums,)


@app.cell
def _(mo):
    def side_by_side(items, least_rem):
        """In columns of at least that width: beside each other, or on a phone one below another."""
        cells = "".join(
            f"<div style='min-width: 0'>{mo.as_html(item).text}</div>" for item in items
        )
        columns = f"repeat(auto-fit, minmax(min(100%, {least_rem}rem), 1fr))"
        style = f"display: grid; gap: 0.75rem; grid-template-columns: {columns}"
        return mo.Html(f"<div style='{style}'>{cells}</div>")

    return (side_by_side,)


@app.cell
def _(commands, mo, now, samples, side_by_side, sums):
    rejections, cents = sums.row(0)
    age = now.published_age_s or 0
    rate = samples["rate"][-1] if len(samples) else None
    side_by_side(
        [
            mo.stat(f"{commands:,}", label="Commands", caption="in the log"),
            mo.stat(
                "–" if rate is None else f"{rate:,.0f}", label="Rate", caption="commands a second"
            ),
            mo.stat(
                "–" if now.lag is None else f"{now.lag:,}",
                label="Lag",
                caption="Redis does not answer" if now.lag is None else "commands wait in Redis",
            ),
            mo.stat(
                f"{age:,.1f} s" if now.unpublished else "up to date",
                label="Freshness",
                caption=f"{now.unpublished:,} rows behind"
                if now.unpublished
                else f"published {age:,.0f} s ago",
            ),
            mo.stat(
                f"{rejections:,}",
                label="Rejections",
                caption=f"{rejections / max(commands, 1):.2%} of the commands",
            ),
            mo.stat(f"${cents / 100:,.0f}", label="Revenue", caption="of all carts"),
        ],
        least_rem=8,
    )
    return


@app.cell
def _(alt, samples, side_by_side):
    def over_time(column, title, color):
        return (
            alt.Chart(samples, title=title)
            .mark_area(line={"color": color}, color=color, opacity=0.25)
            .encode(
                x=alt.X("at:T", title=None, axis=alt.Axis(format="%H:%M:%S", tickCount=4)),
                y=alt.Y(f"{column}:Q", title=None, axis=alt.Axis(format=",d", tickMinStep=1)),
            )
            .properties(width="container", height=150)
        )

    side_by_side(
        [
            over_time("rate", "Commands a second", "#4c78a8"),
            over_time("lag", "Lag: commands that wait in Redis", "#f58518"),
        ],
        least_rem=22,
    )
    return


@app.cell
def _(db, mo, product_daily):
    top_products = mo.sql(
        f"""
        SELECT product_id, sum(revenue_cents)::DOUBLE / 100 AS dollars
        FROM product_daily
        GROUP BY product_id
        ORDER BY dollars DESC, product_id
        LIMIT 10
        """,
        output=False,
        engine=db,
    )
    return (top_products,)


@app.cell
def _(db, mo, rejection_reasons):
    reasons = mo.sql(
        f"""
        SELECT reason, sum(commands)::BIGINT AS commands
        FROM rejection_reasons
        GROUP BY reason
        ORDER BY commands DESC, reason
        LIMIT 10
        """,
        output=False,
        engine=db,
    )
    return (reasons,)


@app.cell
def _(NotAvailable, pl, transactions):
    # The names of the products are the demo's; the system knows products by their ids alone.
    try:
        products = pl.read_parquet(transactions().with_name("products.parquet")).select(
            product_id=pl.col("product_id").cast(pl.String),
            name=pl.col("product_type").str.to_lowercase() + " · ",
        )
    except NotAvailable:
        products = pl.DataFrame(schema={"product_id": pl.String, "name": pl.String})
    return (products,)


@app.cell
def _(alt, pl, products, reasons, side_by_side, top_products):
    named = top_products.join(products, on="product_id", how="left", maintain_order="left").select(
        (pl.col("name").fill_null("") + pl.col("product_id")).alias("product"), "dollars"
    )

    def bars(table, name, measure, title, form, color):
        room = alt.Scale(domain=[0, 1.25 * (table[measure].max() or 1)])  # for the longest label
        base = alt.Chart(table, title=title).encode(
            x=alt.X(
                f"{measure}:Q",
                title=None,
                scale=room,
                axis=alt.Axis(format=form, tickCount=4, tickMinStep=1),
            ),
            y=alt.Y(f"{name}:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)),
            tooltip=[name, measure],
        )
        numbers = base.mark_text(align="left", dx=4).encode(text=alt.Text(measure, format=form))
        return alt.layer(base.mark_bar(color=color), numbers).properties(
            width="container", height=alt.Step(22)
        )

    side_by_side(
        [
            bars(
                named,
                "product",
                "dollars",
                "Top products by revenue",
                "$,.0f",
                "#54a24b",
            ),
            bars(reasons, "reason", "commands", "Rejections by reason", ",d", "#e45756"),
        ],
        least_rem=22,
    )
    return


if __name__ == "__main__":
    app.run()
