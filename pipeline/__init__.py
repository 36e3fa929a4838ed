"""From a batch of commands to the log, and from the log to the read models, and the tools around.

    lock  paths  settings  messages
    log       the event log, the only truth
    decide    commands into rows
    replay    rows into events and states
    react     what partitions send to each other
    deployment  a domain on a data directory
    feed      events out, to whoever follows the log
    engine    a dataflow as a program
    work      commands ──▶ decide ──▶ commit ──▶ replies
    read      log ──▶ fold ──▶ flush ──▶ publish
    health    status, metrics
    operate   up, verify, resubmit, the past
    extras    demo, benchmark, starter
    cli       the command line

Each room imports only what is above it in this list. The log stands between the two sides: each is
a program of its own, and neither knows of the other. This is the one package that sees both
`ingest` and `projections`. What may not come in: rules of a domain.
"""
