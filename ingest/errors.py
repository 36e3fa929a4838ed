"""Every error that a user can meet. Each message is one line that says what to do.

FoldlogError
  + Rejected
  + CommandInvalid
    + CommandTooLarge
  + OutcomeTimeout
  + RedisUnreachable
  + DomainInvalid
  + DomainFailed
  + ReadModelInvalid
  + ReadModelFailed
  + LogMismatch
  + LogDamaged
  + Superseded
  + NoRoom
  + DataInUse
  + NotAvailable
  + NameTaken
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
    """The producer was given something that cannot be sent."""


class CommandTooLarge(CommandInvalid):
    """More bytes than a command may have."""


class OutcomeTimeout(FoldlogError):
    """No outcome came back, or was published, in time."""


class RedisUnreachable(FoldlogError):
    """Redis does not answer, or refuses the write."""


class DomainInvalid(FoldlogError):
    """The domain's declaration does not hold together."""


class DomainFailed(FoldlogError):
    """The domain's code failed on a command."""

    def __init__(self, message: str, stream_id: str | None = None) -> None:
        """`stream_id` is that of the command on which it failed, where it was one."""
        super().__init__(message)
        self.stream_id = stream_id


class ReadModelInvalid(FoldlogError):
    """A read model's declaration cannot be kept live."""


class ReadModelFailed(FoldlogError):
    """A read model failed on an event."""


class LogMismatch(FoldlogError):
    """The log was made with other settings, other events, or newer code."""


class LogDamaged(FoldlogError):
    """A file of the log cannot be read, or is missing."""


class Superseded(FoldlogError):
    """Another writer has taken over the partition."""


class NoRoom(FoldlogError):
    """A file cannot be written: the disk is full, or not ours."""


class DataInUse(FoldlogError):
    """Another pipeline runs on this data directory."""


class NotAvailable(FoldlogError):
    """Something that the command needs is not there."""


class NameTaken(FoldlogError):
    """A new domain cannot have that name."""
