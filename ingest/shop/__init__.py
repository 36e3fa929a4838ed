"""The shop that ships: what a domain looks like, and the default one.

What may not come in: anything that the system itself would need.
"""

from ingest.domain import Domain
from ingest.shop.cart import cart

shop = Domain("shop", (cart,), read_models="projections.shop", queries="projections.shop.queries")
