"""The read side: read models declared once, kept live in DuckDB, published as one plain file.

A read model is the folded state of each aggregate (one row an aggregate), one SQL SELECT with a
GROUP BY in a .sql file, or a view on others. The same declaration runs on each live batch and over
the whole log.

What may not come in: Redis, Bytewax, and anything of `pipeline`; the log is handed in.
"""

from projections.asynchronous import AsyncReadModels
from projections.connection import ReadModels, connect
from projections.query import Query, ask

__all__ = ["AsyncReadModels", "Query", "ReadModels", "ask", "connect"]
