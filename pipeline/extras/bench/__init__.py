"""`foldlog bench`: every figure stands beside a limit that the same run measures.

load        what is sent and what logs are made of, and the bare limits of Redis
throughput  commands a second, the producer's and the pipeline's
delays      from XADD to the outcome, and to the published file
rebuilds    read models from the log, beside DuckDB and Python without us
reactions   what policies cost, and how soon what they send has its outcome
grown       a log of many millions of events: restart, memory, and the rate on top of it
parts       what may be measured, by name
table       the figures as a table and as JSON

Nothing here is part of a running pipeline, and the only domain that it knows is the shop.
"""
