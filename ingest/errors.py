"""Every error that a user can meet. Each message is one line that says what to do.

FoldlogError
  + Rejected             a rule of the domain said no
  + CommandInvalid       the producer was given something that cannot be sent
    + CommandTooLarge    more bytes than a command may have
  + OutcomeTimeout       no outcome came back, or was published, in time
  + RedisUnreachable     Redis does not answer, or refuses the write
  + DomainInvalid        the domain's declaration does not hold together
  + DomainFailed         the domain's code failed on a command
  + ReadModelInvalid     a read model's declaration cannot be kept live
  + ReadModelFailed      a read model failed on an event
  + LogMismatch          the log was made with other settings, other events, or newer code
  + LogDamaged           a file of the log cannot be read, or is missing
  + Superseded           another writer has taken over the partition
  + NoRoom               a file cannot be written: the disk is full, or not ours
  + DataInUse            another pipeline runs on this data directory
  + NotAvailable         something that the command needs is not there
  + NameTaken            a new domain cannot have that name
"""

from __future__ import annotations


def one_line(error: object) -> str:
    """What an error of DuckDB, Arrow or the system says, for the middle of a message of ours."""
    return " ".join(str(error).split())


class FoldlogError(Exception):
    """The root of all errors that are told to a user in one line."""


class Rejected(FoldlogError):
    """Raised by `decide` with the reason; by `Producer.execute` when that was the outcome."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CommandInvalid(FoldlogError):
    pass


class CommandTooLarge(CommandInvalid):
    pass


class OutcomeTimeout(FoldlogError):
    pass


class RedisUnreachable(FoldlogError):
    pass


class DomainInvalid(FoldlogError):
    pass


class DomainFailed(FoldlogError):
    def __init__(self, message: str, stream_id: str | None = None) -> None:
        """`stream_id` is that of the command on which it failed, where it was one."""
        super().__init__(message)
        self.stream_id = stream_id


class ReadModelInvalid(FoldlogError):
    pass


class ReadModelFailed(FoldlogError):
    pass


class LogMismatch(FoldlogError):
    pass


class LogDamaged(FoldlogError):
    pass


class Superseded(FoldlogError):
    pass


class NoRoom(FoldlogError):
    pass


class DataInUse(FoldlogError):
    pass


class NotAvailable(FoldlogError):
    pass


class NameTaken(FoldlogError):
    pass
