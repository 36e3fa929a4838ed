"""A domain that cannot work is refused when it is made, by the name of what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import make_dataclass, replace
from typing import Any

import pytest

from ingest.domain import Domain, Upcast
from ingest.errors import DomainInvalid
from projections.upcast import check_upcasts
from tests.domains import shop


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"last_at": str}, r"read model tills: Row\.last_at: the read model has a column last_at"),
        ({"first_at": str}, r"Row\.first_at"),
        ({"version": int}, r"Row\.version"),
        ({"till": str}, r"Row\.till"),
        ({"aggregate_id": str}, r"Row\.aggregate_id"),
        ({"Last_At": str}, r"Row\.Last_At: the read model has a column last_at"),
        ({"sum": int, "Sum": int}, r"Row\.Sum: the read model has a column sum"),
        ({"lines": object}, r"Row\.lines: object cannot be a column"),
    ],
)
def test_a_row_field_that_cannot_be_a_column_is_named(fields: dict[str, Any], told: str) -> None:
    row = make_dataclass("Row", [*fields.items()])
    with pytest.raises(DomainInvalid, match=told):
        replace(shop.then, row_type=row)


def test_a_row_that_is_no_dataclass_is_refused() -> None:
    with pytest.raises(DomainInvalid, match="read model tills: dict must be a dataclass"):
        replace(shop.then, row_type=dict)


def test_event_fields_that_sql_cannot_tell_apart_are_refused() -> None:
    events = {
        "Sold": make_dataclass("Sold", [("name", str)]),
        "Lost": make_dataclass("Lost", [("Name", str)]),
        "Kept": make_dataclass("Kept", [("reason", str)]),
    }
    with pytest.raises(DomainInvalid, match=r"Lost\.Name is name elsewhere"):
        replace(shop.then, events=events)
    for name in ("Reason", "POSITION"):
        with pytest.raises(DomainInvalid, match=f"Kept.{name}: the log has a column of that name"):
            replace(shop.then, events={"Kept": make_dataclass("Kept", [(name, str)])})


def with_upcast(
    columns: Mapping[str, str], retired: Mapping[str, Any] | None = None, of: str = "Sold"
) -> Domain:
    second = shop.now.upcasts[1]
    first = Upcast(event_type=of, from_version=1, columns=columns, retired=retired or {})
    return replace(shop.now, upcasts=(first, second))


def test_an_upcast_names_its_event_its_version_and_what_is_wrong() -> None:
    right = {"cents": "price * 100"}
    with pytest.raises(DomainInvalid, match="needs an Upcast from each version before"):
        with_upcast(right, {"price": float}, of="Solt")
    extra = Upcast(event_type="Solt", from_version=1, columns={})
    with pytest.raises(DomainInvalid, match=r"Solt from version 1: there is no such event; .*Sold"):
        replace(shop.now, upcasts=(*shop.now.upcasts, extra))
    with pytest.raises(DomainInvalid, match=r"has them from \[1, 1, 2\]"):
        replace(shop.now, upcasts=(*shop.now.upcasts, shop.now.upcasts[0]))
    with pytest.raises(DomainInvalid, match="Sold from version 1: there is no column cent;"):
        with_upcast({"cent": "price * 100"}, {"price": float})
    with pytest.raises(DomainInvalid, match="version 1 retires price: <class 'object'> is no type"):
        with_upcast(right, {"price": object})
    with pytest.raises(DomainInvalid, match="retires cents as string, and elsewhere it is int64"):
        with_upcast(right, {"cents": str})
    check_upcasts(with_upcast(right, {"price": float}))
    check_upcasts(with_upcast(right, {"price": float, "name": str}))
    for sql in ("prise * 100", "price *", "sum(price)", "price; DROP TABLE rows"):
        with pytest.raises(DomainInvalid, match="the Upcast of Sold from version 1 says cents ="):
            check_upcasts(with_upcast({"cents": sql}, {"price": float}))
