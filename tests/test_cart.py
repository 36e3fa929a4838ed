"""The shopping cart's rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import Rejected
from ingest.shop.cart import (
    AddProduct,
    CheckedOut,
    CheckOut,
    ProductAdded,
    ProductRemoved,
    RemoveProduct,
    cart,
    row,
)
from ingest.spec import Spec

a_cart = Spec(cart)
ENVELOPE: dict[str, Any] = {"command_id": "1", "cart_id": "7"}


def add(product: str = "milk", quantity: int = 1, cents: int = 100) -> AddProduct:
    return AddProduct(product_id=product, quantity=quantity, unit_price_cents=cents, **ENVELOPE)


def remove(product: str = "milk", quantity: int = 1) -> RemoveProduct:
    return RemoveProduct(product_id=product, quantity=quantity, **ENVELOPE)


check_out = CheckOut(**ENVELOPE)


def test_a_product_can_be_added_to_a_new_cart() -> None:
    a_cart.given().when(add("milk", 2, 89)).then(ProductAdded("milk", 2, 89))


def test_a_product_that_is_there_can_be_removed() -> None:
    a_cart.given(ProductAdded("milk", 2, 89)).when(remove("milk", 2)).then(
        ProductRemoved("milk", 2, 178)
    )


def test_removed_units_take_their_share_of_the_value() -> None:
    given_two_prices = a_cart.given(ProductAdded("milk", 1, 100), ProductAdded("milk", 2, 50))
    after_one = given_two_prices.when(remove("milk", 1)).then(ProductRemoved("milk", 1, 66))
    after_one.when(remove("milk", 2)).then(ProductRemoved("milk", 2, 134))


@pytest.mark.parametrize("held", [0, 1, 2])
def test_never_more_is_removed_than_is_there(held: int) -> None:
    history = [ProductAdded("milk", 1, 100)] * held
    a_cart.given(*history).when(remove("milk", held + 1)).then_rejected(
        "the cart does not hold that many"
    )


def test_an_empty_cart_cannot_check_out() -> None:
    a_cart.given().when(check_out).then_rejected("the cart is empty")


def test_a_cart_that_was_emptied_cannot_check_out() -> None:
    emptied = a_cart.given(ProductAdded("milk", 1, 100), ProductRemoved("milk", 1, 100))
    emptied.when(check_out).then_rejected("the cart is empty")


@pytest.mark.parametrize("command", [add(), remove(), check_out])
def test_nothing_changes_after_check_out(command: Any) -> None:
    closed = a_cart.given(ProductAdded("milk", 1, 100), CheckedOut())
    closed.when(command).then_rejected("the cart is checked out")


def test_the_row_shows_units_and_value_before_and_after_check_out() -> None:
    events = [ProductAdded("milk", 2, 89), ProductAdded("bread", 1, 250)]
    is_open = row(cart.fold(events))
    is_closed = row(cart.fold([*events, CheckedOut()]))
    assert (is_open.status, is_open.units, is_open.value_cents) == ("open", 3, 428)
    assert (is_closed.status, is_closed.units, is_closed.value_cents) == ("checked out", 3, 428)


PRODUCTS = st.sampled_from(["milk", "bread", "tea"])
ANY_COMMAND = st.one_of(
    st.builds(add, PRODUCTS, st.integers(1, 4), st.integers(0, 999)),
    st.builds(remove, PRODUCTS, st.integers(1, 4)),
    st.just(check_out),
)


@settings(max_examples=200)
@given(st.lists(ANY_COMMAND, max_size=30))
def test_a_cart_never_holds_less_than_nothing_and_loses_no_cent(commands: list[Any]) -> None:
    state, units, cents = cart.initial, 0, 0
    for command in commands:
        try:
            events = cart.decide(state, command)
        except Rejected:
            continue
        for event in events:
            state = cart.evolve(state, event)
            if isinstance(event, ProductAdded):
                units, cents = (
                    units + event.quantity,
                    cents + event.quantity * event.unit_price_cents,
                )
            elif isinstance(event, ProductRemoved):
                units, cents = units - event.quantity, cents - event.value_cents
        shown = row(state)
        assert (shown.units, shown.value_cents) == (units, cents)
        assert units >= 0
        assert cents >= 0
