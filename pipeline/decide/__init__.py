"""From a batch of commands to rows for the log: pure, but for looking up what the log has.

What may not come in: Redis, files, settings, the engine.
"""
