"""Transfers with a policy that may be refused: with each amount that is received comes a bonus, as
long as the bank has money.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ingest import Of
from tests.domains import transfers
from tests.domains.transfers import Account, Received, Transfer

BANK = "bank"


def add_bonus(event: Received, of: Of[Account]) -> Iterator[Transfer]:
    if event.from_account != BANK:
        yield Transfer(account_id=BANK, to_account=of.id, cents=1)


standing_orders = replace(transfers.transfers, policies=(*transfers.transfers.policies, add_bonus))
