"""A command that comes again finds its outcome, also where it made policies send something."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import A_DAY, Outcomes
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.replay.restore import restore
from tests.domains.transfers import transfers
from tests.running import Batch, entry

DEPOSIT = {"type": "Deposit", "command_id": "1", "account_id": "a", "cents": 5}
TRANSFER = {
    "type": "Transfer", "command_id": "2", "account_id": "a", "to_account": "b", "cents": 2
}  # fmt: skip


@pytest.mark.parametrize("restarts", [False, True])
def test_it_changes_nothing_once_only_the_log_knows_it(tmp_path: Path, restarts: bool) -> None:
    log = Log.create(tmp_path / "events", partitions=1, domain="transfers")
    decider = BatchDecider(transfers, partitions=1, payload_bytes_max=65_536)
    partition = Partition(0, outcomes=Outcomes(A_DAY, log, 0, 0, recent=0))
    for number, command in enumerate([DEPOSIT, TRANSFER, *[DEPOSIT | {"command_id": f"x{i}"}
                                                          for i in range(9)]]):  # fmt: skip
        decided = decider.decide(partition, Batch(0, [entry(number, command)]))
        partition.apply(decided)
        log.append(0, decided.first, decided.rows, inputs=decided.inputs)
    if restarts:
        partition = restore(transfers, log, 0, A_DAY)
    again = decider.decide(partition, Batch(0, [entry(20, TRANSFER), entry(21, DEPOSIT)]))
    assert len(again.rows) == 0
    assert again.not_accepted == {"duplicate": 2}
