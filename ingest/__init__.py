"""The write side: commands, the Decider contract, the shopping cart, producers, Redis Streams.

What may not come in: Parquet files, DuckDB, and anything of `pipeline` or `projections`.
"""
