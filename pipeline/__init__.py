"""From a batch of commands to the log, and from the log to the read models, and the tools around.

    work    commands ──▶ decide ──▶ commit ──▶ replies
             source       fold        log
    read      log    ──▶  fold  ──▶ flush  ──▶ publish
             follow      states    DuckDB

The log stands between the two sides: each is a program of its own, and neither knows of the other.
This is the one room that sees both `ingest` and `projections`. What may not come in: rules of a
domain.
"""
