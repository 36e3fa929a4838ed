"""From a batch of commands to the log and the read models, and the tools around it.

    commands ──▶ decide ──▶ commit ──┬──▶ replies
     source       fold        log    └──▶ read_models

This is the one room that sees both `ingest` and `projections`. What may not come in: rules of a
domain.
"""
