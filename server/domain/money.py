"""Money of a bill: tax, split by share and by item, what is still due. Integers only, nothing gets lost.

Tax is contained in every price. Rounding "line": each line's tax is rounded half up and the bill's is their
sum. Rounding "bill": per tax class the tax inside the class's sum, rounded half up once. The rule a bill was
made with is stored with it.

A split by share gives every share the floor of its part; the cents that are left go one each to the shares
with the largest remainder, the earlier share first among equals. A split by item adds up what each guest
had; what nobody claimed is the last part. Tax of the parts is the bill's, split in proportion to what each
part owes by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.domain.errors import HouseCode, HouseError
from server.ordering.pricing import contained_tax

PARTS_MAX = 20


class Rounding(StrEnum):
    """Where tax is rounded."""

    LINE = "line"
    BILL = "bill"


@dataclass(frozen=True, slots=True)
class BillLine:
    """A live line of a bill; ``basis_points`` None: its stored tax counts whatever the rule."""

    order_number: int
    line: int
    total_minor: int
    tax_minor: int
    basis_points: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a split bill; ``lines`` are (order number, line), empty for a share."""

    due_minor: int
    tax_minor: int
    lines: tuple[tuple[int, int], ...] = ()


def bill_tax(lines: Sequence[BillLine], rounding: Rounding) -> int:
    """The tax contained in a bill, in minor units."""
    tax = 0
    gross: dict[int, int] = {}
    for line in lines:
        if line.basis_points is None:
            tax += line.tax_minor
        elif rounding is Rounding.LINE:
            tax += contained_tax(line.total_minor, line.basis_points)
        else:
            gross[line.basis_points] = gross.get(line.basis_points, 0) + line.total_minor
    return tax + sum(contained_tax(amount, basis_points) for basis_points, amount in gross.items())


def in_proportion(amount_minor: int, weights: Sequence[int]) -> list[int]:
    """An amount in parts proportional to ``weights``: they add up exactly, none differs by a cent or more.

    All weights zero counts as all equal. Raises: HouseError(BAD_SPLIT) for no or negative weights.
    """
    if not weights or min(weights) < 0 or amount_minor < 0:
        raise HouseError(HouseCode.BAD_SPLIT, "a split needs at least one part and no negative one")
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [amount_minor * weight // whole for weight in weights]
    left = amount_minor - sum(parts)
    by_remainder = sorted(range(len(weights)), key=lambda at: (-(amount_minor * weights[at] % whole), at))
    for at in by_remainder[:left]:
        parts[at] += 1
    return parts


def split_by_share(total_minor: int, tax_minor: int, weights: Sequence[int]) -> list[Part]:
    """A bill in shares of the given weights. Raises: HouseError(BAD_SPLIT)."""
    _check_count(len(weights))
    dues = in_proportion(total_minor, weights)
    return [Part(due, tax) for due, tax in zip(dues, _taxes(tax_minor, dues), strict=True)]


def split_by_item(
    lines: Sequence[BillLine], tax_minor: int, groups: Sequence[Sequence[tuple[int, int]]]
) -> list[Part]:
    """A bill by who had what: each group names (order number, line); unnamed lines are one more part.

    Raises: HouseError(BAD_SPLIT) for a line that is not on the bill or named twice, or an empty group.
    """
    amounts = {(line.order_number, line.line): line.total_minor for line in lines}
    left = dict.fromkeys(amounts)
    chosen: list[tuple[tuple[int, int], ...]] = []
    for group in groups:
        if not group:
            raise HouseError(HouseCode.BAD_SPLIT, "every part needs at least one line")
        for key in group:
            if key not in left:
                what = "is named twice" if key in amounts else "is not on the bill"
                raise HouseError(HouseCode.BAD_SPLIT, f"line {key[1]} of order {key[0]} {what}")
            del left[key]
        chosen.append(tuple(group))
    if left:
        chosen.append(tuple(left))
    _check_count(len(chosen))
    dues = [sum(amounts[key] for key in part) for part in chosen]
    taxes = _taxes(tax_minor, dues)
    return [Part(due, tax, part) for due, tax, part in zip(dues, taxes, chosen, strict=True)]


def _taxes(tax_minor: int, dues: Sequence[int]) -> list[int]:
    return in_proportion(tax_minor, dues)


def _check_count(count: int) -> None:
    if not 1 <= count <= PARTS_MAX:
        raise HouseError(HouseCode.BAD_SPLIT, f"a bill is split into 1 to {PARTS_MAX} parts, not {count}")
