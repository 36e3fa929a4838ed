"""The event log: commits as Parquet files in a folder, created exclusively, read, merged, removed.

What may not come in: what an event means to a domain, settings, Redis, DuckDB.
"""
