"""A published menu as the pricing code wants it: lookups by id, nothing to parse, nothing that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROUND_PER_LINE = 0
ROUND_PER_BILL = 1


@dataclass(frozen=True, slots=True)
class PricedGroup:
    """A modifier group: how many of its modifiers a line may carry, and what each adds."""

    least: int
    most: int
    deltas_minor: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class PricedItem:
    """An item: its price with tax included, its tax class and its modifier groups."""

    price_minor: int
    tax_id: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PriceList:
    """Everything needed to price an order against one menu version.

    ``taxes`` maps tax id to basis points; ``modifier_groups`` maps a modifier id to every group it appears
    in.
    """

    version: int
    rounding: int
    taxes: Mapping[int, int]
    groups: Mapping[int, PricedGroup]
    items: Mapping[int, PricedItem]
    modifier_groups: Mapping[int, frozenset[int]]


def price_list(
    version: int,
    rounding: int,
    taxes: Mapping[int, int],
    groups: Mapping[int, PricedGroup],
    items: Mapping[int, PricedItem],
) -> PriceList:
    """Build a price list and the index from modifiers to groups."""
    index: dict[int, set[int]] = {}
    for group_id, group in groups.items():
        for modifier in group.deltas_minor:
            index.setdefault(modifier, set()).add(group_id)
    return PriceList(
        version,
        rounding,
        dict(taxes),
        dict(groups),
        dict(items),
        {modifier: frozenset(ids) for modifier, ids in index.items()},
    )
