"""Pricing against an independent model in exact fractions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from server.ordering.price_list import PricedGroup, PricedItem, PriceList, price_list
from server.ordering.pricing import MAX_TOTAL_MINOR, PricedOrder, Rejected, price_order
from server.wire.ops import Line, RejectCode

RATES = {1: 0, 2: 700, 3: 1900, 4: 10_000}


@st.composite
def menus(draw: st.DrawFn) -> PriceList:
    groups = {}
    for group in range(1, draw(st.integers(0, 4)) + 1):
        modifiers = range(group * 10, group * 10 + draw(st.integers(1, 3)))
        deltas = {modifier: draw(st.integers(-400, 400)) for modifier in modifiers}
        most = draw(st.integers(1, 3))
        groups[group] = PricedGroup(draw(st.integers(0, most)), most, deltas)
    chosen = st.lists(st.sampled_from(sorted(groups)), unique=True).map(tuple) if groups else st.just(())
    items = {
        item: PricedItem(draw(st.integers(0, 5000)), draw(st.sampled_from(sorted(RATES))), draw(chosen))
        for item in range(1, draw(st.integers(1, 5)) + 1)
    }
    return price_list(1, draw(st.integers(0, 1)), RATES, groups, items)


orders = st.lists(
    st.builds(
        Line,
        st.integers(1, 6),
        st.integers(1, 99),
        st.lists(st.integers(9, 44), max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=8,
)


def model(menu: PriceList, lines: list[Line]) -> tuple[int, int] | RejectCode:
    """(total, tax) of an order, or why it is rejected; written from the wire contract's words only."""
    total, taxed = Fraction(0), Counter[int]()
    tax = 0
    for line in lines:
        if line.item not in menu.items:
            return RejectCode.UNKNOWN_ITEM
        item = menu.items[line.item]
        price, used = Fraction(item.price_minor), Counter[int]()
        for modifier in line.modifiers:
            owners = [number for number, group in menu.groups.items() if modifier in group.deltas_minor]
            if not owners:
                return RejectCode.UNKNOWN_MODIFIER
            (owner,) = owners
            used[owner] += 1
            if owner not in item.groups or used[owner] > menu.groups[owner].most:
                return RejectCode.MODIFIER_RULE
            price += menu.groups[owner].deltas_minor[modifier]
        if price < 0 or any(used[number] < menu.groups[number].least for number in item.groups):
            return RejectCode.MODIFIER_RULE
        amount = price * line.quantity
        total += amount
        taxed[item.tax_id] += int(amount)
        tax += inside(amount, menu.taxes[item.tax_id])
    if menu.rounding == 1:
        tax = sum(inside(Fraction(gross), menu.taxes[tax_id]) for tax_id, gross in taxed.items())
    return RejectCode.TOO_LARGE if total > MAX_TOTAL_MINOR else (int(total), tax)


def inside(gross: Fraction, basis_points: int) -> int:
    """Tax contained in a gross amount, half up."""
    return floor(gross * basis_points / (10_000 + basis_points) + Fraction(1, 2))


@given(menus(), orders)
def test_pricing_agrees_with_exact_fractions(menu: PriceList, lines: list[Line]) -> None:
    try:
        order, found = price_order(menu, lines), None
    except Rejected as rejected:
        order, found = None, rejected.code
    if order is not None:
        assert (order.total_minor, order.tax_minor) == model(menu, lines)
        check_sums(order)
    else:
        assert found == model(menu, lines)


def check_sums(order: PricedOrder) -> None:
    """Lines add up to the order; nothing is negative."""
    assert order.total_minor == sum(line.total_minor for line in order.lines)
    assert order.tax_minor == sum(line.tax_minor for line in order.lines)
    assert all(
        line.total_minor == line.quantity * line.unit_minor >= line.tax_minor >= 0 for line in order.lines
    )
