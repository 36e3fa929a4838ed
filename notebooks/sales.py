import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Foldlog: sales")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Sales

    What was sold, when, and in which department, from the published read models.
    """)
    return


@app.cell
def _():
    import altair as alt
    import marimo as mo

    from ingest import NotAvailable
    from pipeline.extras.baskets import transactions
    from pipeline.settings import Settings
    from projections import connect

    return NotAvailable, Settings, alt, connect, mo, transactions


@app.cell
def _(NotAvailable, Settings, connect, mo, transactions):
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
    # The names of the products are the demo's; the system knows products by their ids alone.
    try:
        listed = f"read_parquet('{transactions().with_name('products.parquet')}')"
        note = None
    except NotAvailable:
        listed = "(SELECT '' AS product_id, '' AS department, '' AS product_type LIMIT 0)"
        note = mo.callout("Products have no names here: `pip install 'foldlog[demo]'` brings them.")
    db.execute(f"""
        CREATE TEMP VIEW products AS
        SELECT product_id::VARCHAR AS product_id, lower(department) AS department,
            lower(product_type) AS product_type
        FROM {listed}
    """)
    note
    return (db,)


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
def _(db, mo, side_by_side):
    [(cents, sold)] = db.execute(
        "SELECT coalesce(sum(revenue_cents), 0), count(DISTINCT product_id) FROM product_daily"
    ).fetchall()
    [(baskets,)] = db.execute("SELECT count(*) FROM carts WHERE status = 'checked out'").fetchall()
    side_by_side(
        [
            mo.stat(f"${cents / 100:,.0f}", label="Revenue"),
            mo.stat(f"{sold:,}", label="Different products"),
            mo.stat(f"{baskets:,}", label="Baskets checked out"),
            mo.stat(f"${cents / 100 / max(baskets, 1):,.2f}", label="Revenue per basket"),
        ],
        least_rem=8,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Revenue by day and department

    The six largest departments, and the others as one.
    """)
    return


@app.cell
def _(db, mo, product_daily, products):
    by_day = mo.sql(
        f"""
        WITH sold AS (
            SELECT day, coalesce(department, 'unknown') AS department, revenue_cents
            FROM product_daily LEFT JOIN products USING (product_id)
        ),
        largest AS (
            SELECT department FROM sold GROUP BY department
            ORDER BY sum(revenue_cents) DESC, department LIMIT 6
        ),
        shown AS (
            SELECT day, revenue_cents,
                CASE WHEN department IN (FROM largest) THEN department ELSE 'all others' END
                    AS department
            FROM sold
        ),
        days AS (  -- also those on which nothing was sold
            SELECT unnest(range(min(day), max(day) + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day
            FROM sold
        )
        SELECT
            day::TIMESTAMP AS day,
            department,
            coalesce(sum(revenue_cents), 0)::DOUBLE / 100 AS dollars
        FROM days CROSS JOIN (SELECT DISTINCT department FROM shown)
            LEFT JOIN shown USING (day, department)
        GROUP BY ALL
        ORDER BY day, department
        """,
        output=False,
        engine=db,
    )
    return (by_day,)


@app.cell
def _(alt, by_day, by_department):
    shown = by_department["department"].to_list()
    order = [d for d in shown if d in set(by_day["department"])] + ["all others"]
    palette = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#bab0ac"]
    colors = alt.Scale(domain=order, range=[*palette[: len(order) - 1], palette[-1]])
    (
        alt.Chart(
            by_day.with_columns(rank=by_day["department"].replace_strict(order, range(len(order))))
        )
        .mark_area()
        .encode(
            x=alt.X(
                "day:T",
                title=None,
                axis=alt.Axis(
                    format="%b %Y", tickCount="month", labelOverlap=True, labelSeparation=12
                ),
            ),
            y=alt.Y("dollars:Q", title="Revenue a day", axis=alt.Axis(format="$,.0f"), stack=True),
            color=alt.Color("department:N", title="Department", scale=colors),
            order="rank:Q",
            tooltip=[
                alt.Tooltip("day:T", title="Day"),
                alt.Tooltip("department:N", title="Department"),
                alt.Tooltip("dollars:Q", title="Revenue", format="$,.2f"),
            ],
        )
        .properties(width="container", height=280)
    )
    return colors, order


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Departments and products

    Revenue of each department over the whole time, and the fifteen products that brought the most.
    """)
    return


@app.cell
def _(db, mo, product_daily, products):
    by_department = mo.sql(
        f"""
        SELECT
            coalesce(department, 'unknown') AS department,
            sum(revenue_cents)::DOUBLE / 100 AS dollars
        FROM product_daily LEFT JOIN products USING (product_id)
        GROUP BY ALL
        ORDER BY dollars DESC, department
        LIMIT 12
        """,
        output=False,
        engine=db,
    )
    return (by_department,)


@app.cell
def _(db, mo, product_daily, products):
    top_products = mo.sql(
        f"""
        SELECT
            coalesce(product_type || ' · ', '') || product_id AS product,
            coalesce(department, 'unknown') AS department,
            sum(revenue_cents)::DOUBLE / 100 AS dollars,
            sum(units_added - units_removed)::BIGINT AS units
        FROM product_daily LEFT JOIN products USING (product_id)
        GROUP BY ALL
        ORDER BY dollars DESC, product
        LIMIT 15
        """,
        output=False,
        engine=db,
    )
    return (top_products,)


@app.cell
def _(alt, by_department, colors, order, side_by_side, top_products):
    def bars(table, name, title):
        shade = alt.condition(
            alt.FieldOneOfPredicate("department", order),
            alt.Color("department:N", scale=colors, legend=None),
            alt.value("#bab0ac"),
        )
        return (
            alt.Chart(table, title=title)
            .mark_bar()
            .encode(
                x=alt.X("dollars:Q", title=None, axis=alt.Axis(format="$~s", tickCount=5)),
                y=alt.Y(f"{name}:N", title=None, sort=None, axis=alt.Axis(labelLimit=230)),
                color=shade,
                tooltip=[name, "department", alt.Tooltip("dollars:Q", format="$,.2f")],
            )
            .properties(width="container", height=alt.Step(21))
        )

    side_by_side(
        [
            bars(by_department, "department", "The largest departments"),
            bars(top_products, "product", "Top products"),
        ],
        least_rem=24,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Baskets by hour

    How many carts are checked out in an hour, on average, by the day of the week.
    """)
    return


@app.cell
def _(db, hourly_funnel, mo, sales_daily):
    by_hour = mo.sql(
        f"""
        WITH days AS (
            SELECT dayname(day) AS weekday, count(*) AS days FROM sales_daily GROUP BY ALL
        )
        SELECT dayname(hour) AS weekday, hour(hour) AS hour,
            sum(carts_checked_out)::DOUBLE / any_value(days) AS baskets
        FROM hourly_funnel JOIN days ON weekday = dayname(hour)
        GROUP BY ALL
        ORDER BY ALL
        """,
        output=False,
        engine=db,
    )
    return (by_hour,)


@app.cell
def _(alt, by_hour):
    week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    (
        alt.Chart(by_hour)
        .mark_rect()
        .encode(
            x=alt.X(
                "hour:O",
                title="Hour (UTC)",
                axis=alt.Axis(labelAngle=0),
                scale=alt.Scale(domain=list(range(24))),
            ),
            y=alt.Y("weekday:N", title=None, sort=week, scale=alt.Scale(domain=week)),
            color=alt.Color("baskets:Q", title="Baskets an hour", scale=alt.Scale(scheme="blues")),
            tooltip=["weekday", "hour", alt.Tooltip("baskets:Q", format=".1f")],
        )
        .properties(width="container", height=190)
    )
    return


if __name__ == "__main__":
    app.run()
