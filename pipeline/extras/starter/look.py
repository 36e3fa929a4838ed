# mypy: ignore-errors

import marimo

app = marimo.App(app_title="Orders")


@app.cell
def _():
    import marimo as mo

    from pipeline.extras.starter.queries import GetOrder, TopCustomers
    from projections import ask, connect

    return GetOrder, TopCustomers, ask, connect, mo


@app.cell
def _(mo):
    refresh = mo.ui.refresh(options=["1s", "5s"], default_interval="5s")
    mo.hstack([mo.md("# Orders"), refresh])
    return (refresh,)


@app.cell
def _(connect):
    db = connect("data/read_models.duckdb")
    return (db,)


@app.cell
def _(db, mo, refresh):
    refresh
    by_status = db.sql(
        "SELECT status, count(*) AS orders, sum(amount_cents)::BIGINT AS amount_cents"
        " FROM orders GROUP BY status ORDER BY status"
    ).to_arrow_table()
    mo.ui.table(by_status, label="Orders by status", selection=None)
    return


@app.cell
def _(db, mo, refresh):
    refresh
    to_be_paid = db.sql(
        "SELECT order_id, amount_cents - paid_cents AS cents, due_at AS cancelled_at"
        " FROM orders JOIN deadlines ON aggregate_id = order_id"
        " WHERE status = 'placed' AND state = 'waiting' ORDER BY due_at"
    ).to_arrow_table()
    mo.ui.table(to_be_paid, label="To be paid, or else cancelled", selection=None)
    return


@app.cell
def _(TopCustomers, ask, db, mo, refresh):
    refresh
    customers = [customer.model_dump() for customer in ask(db, TopCustomers(limit=5))]
    mo.ui.table(customers, label="Top customers", selection=None)
    return (customers,)


@app.cell
def _(mo):
    order_id = mo.ui.text(value="1", label="Look at order")
    order_id
    return (order_id,)


@app.cell
def _(GetOrder, ask, db, mo, order_id):
    order = ask(db, GetOrder(order_id=order_id.value))
    mo.plain(order.model_dump() if order else None)
    return


if __name__ == "__main__":
    app.run()
