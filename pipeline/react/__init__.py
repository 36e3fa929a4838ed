"""What partitions send to each other: the log is the outbox, and its reader pulls.

The invariant: a partition's rows whose `stream_id` is `p/x` are the outcomes of exactly the sends
to it in the log of partition p below its cursor for p, each once, in order. Its cursors are in the
footer of the commit that holds the outcomes, so both become durable together, or neither does.

What may not come in: Redis, the engine, what a command means.
"""
