"""Events out: a reader of its own takes them from the log, from any position or time, and goes on.

    token         where to go on, as text
    begin         where to begin
    follower      the log's rows as they come, partition by partition
    selection     of these the events that are wanted
    events        rows as events of the domain
    lines         rows as JSON
    cloud_events  rows as CloudEvents
    subscription  all of it, to be iterated over

Whoever reads here needs the right to read the log, and none to write. What may not come in: Redis,
the read models, and anything that would keep for a reader how far it is; its token says that.
"""
