"""What an order costs: integers in, integers out, no I/O.

A line costs quantity x (price + sum of its modifiers' deltas); the order is the sum of its lines. Prices
include tax, and the tax inside a gross amount g at b basis points is g*b/(10000+b), rounded half up on
integers: per line, or (rounding "per bill") once per tax class over the whole order, with each line
carrying its share so that the lines still add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.ordering.price_list import ROUND_PER_BILL, PricedItem, PriceList
from server.wire.ops import Line, RejectCode

MAX_TOTAL_MINOR = 100_000_000


class Rejected(Exception):
    """The op is authentic but can never be accepted; ``code`` says why."""

    def __init__(self, code: RejectCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True, slots=True)
class PricedLine:
    """One line with what it costs; the tax is contained in the total."""

    item: int
    quantity: int
    modifiers: tuple[int, ...]
    unit_minor: int
    total_minor: int
    tax_minor: int
    basis_points: int


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """A whole order with what it costs."""

    lines: tuple[PricedLine, ...]
    total_minor: int
    tax_minor: int


def unit_price(prices: PriceList, item: PricedItem, modifiers: Sequence[int]) -> int:
    """What one piece costs with its modifiers, in minor units.

    A modifier is counted against the first of the item's groups that contains it and still has room; the
    same modifier may be taken several times within its group's maximum (a double extra shot).
    Raises: Rejected(UNKNOWN_MODIFIER, MODIFIER_RULE).
    """
    taken = dict.fromkeys(item.groups, 0)
    unit = item.price_minor
    for modifier in modifiers:
        candidates = prices.modifier_groups.get(modifier)
        if candidates is None:
            raise Rejected(RejectCode.UNKNOWN_MODIFIER)
        for group_id in item.groups:
            if group_id in candidates and taken[group_id] < prices.groups[group_id].most:
                taken[group_id] += 1
                unit += prices.groups[group_id].deltas_minor[modifier]
                break
        else:
            raise Rejected(RejectCode.MODIFIER_RULE)
    for group_id, count in taken.items():
        if count < prices.groups[group_id].least:
            raise Rejected(RejectCode.MODIFIER_RULE)
    if unit < 0:
        raise Rejected(RejectCode.MODIFIER_RULE)
    return unit


def contained_tax(gross_minor: int, basis_points: int) -> int:
    """The tax inside a gross amount, half up. Both arguments and the result are non-negative integers."""
    divisor = 10_000 + basis_points
    return (2 * gross_minor * basis_points + divisor) // (2 * divisor)


def price_order(prices: PriceList, lines: Sequence[Line]) -> PricedOrder:
    """Price every line against one menu version.

    Raises: Rejected(UNKNOWN_ITEM, UNKNOWN_MODIFIER, MODIFIER_RULE, TOO_LARGE).
    """
    priced: list[PricedLine] = []
    gross_by_tax: dict[int, int] = {}
    total = 0
    for line in lines:
        item = prices.items.get(line.item)
        if item is None:
            raise Rejected(RejectCode.UNKNOWN_ITEM)
        unit = unit_price(prices, item, line.modifiers)
        amount = unit * line.quantity
        total += amount
        basis_points = prices.taxes[item.tax_id]
        before = gross_by_tax.get(item.tax_id, 0) if prices.rounding == ROUND_PER_BILL else 0
        tax = contained_tax(before + amount, basis_points) - contained_tax(before, basis_points)
        gross_by_tax[item.tax_id] = before + amount
        priced.append(PricedLine(line.item, line.quantity, line.modifiers, unit, amount, tax, basis_points))
    if total > MAX_TOTAL_MINOR:
        raise Rejected(RejectCode.TOO_LARGE)
    return PricedOrder(tuple(priced), total, sum(line.tax_minor for line in priced))
