"""Rules that a test makes on the spot, with the annotations by which an aggregate is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from inspect import signature
from operator import or_
from typing import Any, TypeVar

from ingest.domain import Domain

R = TypeVar("R", bound=Callable[..., Any])


def taking(rule: R, *classes: Any) -> R:
    """A `decide` or `evolve` of these commands or events; a text is as a module would have it."""
    _, second = signature(rule).parameters
    rule.__annotations__ = {second: reduce(or_, classes)}
    return rule


def giving(row: R, shown: Any) -> R:
    """A `row` of this class."""
    row.__annotations__ = {"return": shown}
    return row


def redeclared(domain: Domain, **changes: Any) -> Domain:
    """A domain of one aggregate, with that aggregate declared otherwise."""
    (kind,) = domain.aggregates
    return replace(domain, aggregates=(replace(kind, **changes),))
