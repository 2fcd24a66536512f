"""Prices: integers only, modifiers by their groups' rules, tax half up."""

from __future__ import annotations

import pytest
from order_kit import DONE, ESPRESSO, MILK, NO_CHEESE, RARE, SHOT, STEAK, WATER, a_price_list

from server.ordering.price_list import ROUND_PER_BILL
from server.ordering.pricing import MAX_TOTAL_MINOR, Rejected, contained_tax, price_order
from server.wire.ops import Line, RejectCode

PRICES = a_price_list()


def test_a_line_costs_quantity_times_price_and_modifiers() -> None:
    order = price_order(PRICES, [Line(ESPRESSO, 3, (MILK, SHOT)), Line(WATER, 2)])
    assert [line.total_minor for line in order.lines] == [3 * (260 + 50 + 90), 600]
    assert order.total_minor == 1800


def test_the_same_modifier_twice_counts_twice_within_its_groups_maximum() -> None:
    assert price_order(PRICES, [Line(ESPRESSO, 1, (SHOT, SHOT))]).total_minor == 260 + 180


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (Line(99, 1), RejectCode.UNKNOWN_ITEM),
        (Line(ESPRESSO, 1, (999,)), RejectCode.UNKNOWN_MODIFIER),
        (Line(WATER, 1, (MILK,)), RejectCode.MODIFIER_RULE),
        (Line(STEAK, 1), RejectCode.MODIFIER_RULE),
        (Line(STEAK, 1, (RARE, DONE)), RejectCode.MODIFIER_RULE),
        (Line(ESPRESSO, 1, (MILK, MILK)), RejectCode.MODIFIER_RULE),
        (Line(ESPRESSO, 1, (SHOT, SHOT, SHOT)), RejectCode.MODIFIER_RULE),
        (Line(ESPRESSO, 1, (NO_CHEESE,)), RejectCode.MODIFIER_RULE),
    ],
    ids=[
        "unknown_item",
        "unknown_modifier",
        "modifier_of_another_item",
        "required_missing",
        "two_of_one",
        "milk_twice",
        "too_many_shots",
        "below_zero",
    ],
)
def test_a_line_against_the_menu_is_rejected(line: Line, code: RejectCode) -> None:
    with pytest.raises(Rejected) as caught:
        price_order(PRICES, [line])
    assert caught.value.code is code


def test_a_total_beyond_the_limit_is_too_large() -> None:
    dear = a_price_list(espresso_minor=MAX_TOTAL_MINOR)
    assert price_order(dear, [Line(ESPRESSO, 1)]).total_minor == MAX_TOTAL_MINOR
    with pytest.raises(Rejected) as caught:
        price_order(dear, [Line(ESPRESSO, 2)])
    assert caught.value.code is RejectCode.TOO_LARGE


@pytest.mark.parametrize(
    ("gross", "basis_points", "tax"),
    [(0, 1900, 0), (119, 1900, 19), (107, 700, 7), (3, 1900, 0), (4, 1900, 1)],
)
def test_tax_inside_a_price_is_rounded_half_up(gross: int, basis_points: int, tax: int) -> None:
    assert contained_tax(gross, basis_points) == tax


def test_rounding_per_bill_taxes_the_sum_and_the_lines_still_add_up() -> None:
    lines = [Line(WATER, 1)] * 7
    per_bill = price_order(a_price_list(rounding=ROUND_PER_BILL), lines)
    assert per_bill.tax_minor == contained_tax(7 * 300, 1900) == 335
    assert sum(line.tax_minor for line in per_bill.lines) == per_bill.tax_minor
    assert price_order(PRICES, lines).tax_minor == 7 * contained_tax(300, 1900) == 336
