"""Money neither appears nor vanishes, however a bill is split and wherever tax is rounded."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from server.domain.money import BillLine, Rounding, bill_tax, in_proportion, split_by_item, split_by_share
from server.ordering.pricing import contained_tax

amounts = st.integers(0, 100_000_000)
rates = st.sampled_from([0, 700, 1900, 2100, 10_000])
lines = st.lists(st.tuples(amounts, rates), min_size=1, max_size=20).map(
    lambda rows: [
        BillLine(1, number, amount, contained_tax(amount, rate), rate)
        for number, (amount, rate) in enumerate(rows)
    ]
)


@given(amounts, st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_parts_add_up_and_none_is_off_by_a_cent_or_more(amount: int, weights: list[int]) -> None:
    parts = in_proportion(amount, weights)
    assert sum(parts) == amount
    fair = weights if any(weights) else [1] * len(weights)
    for part, weight in zip(parts, fair, strict=True):
        assert abs(Fraction(amount * weight, sum(fair)) - part) < 1


@given(amounts, st.integers(1, 20))
def test_equal_shares_differ_by_at_most_a_cent_and_the_first_pay_it(amount: int, count: int) -> None:
    dues = [part.due_minor for part in split_by_share(amount, 0, [1] * count)]
    assert sum(dues) == amount
    assert dues == sorted(dues, reverse=True)
    assert dues[0] - dues[-1] <= 1


@given(lines, st.sampled_from(Rounding), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_split_by_item_has_every_line_once_and_the_whole_tax(rows, rounding, groups, random) -> None:  # type: ignore[no-untyped-def]
    tax = bill_tax(rows, rounding)
    chosen: list[list[tuple[int, int]]] = [[] for _ in range(groups)]
    for row in rows:
        at = random.randrange(groups + 1)
        if at < groups:
            chosen[at].append((row.order_number, row.line))
    parts = split_by_item(rows, tax, [group for group in chosen if group])
    assert sum(part.due_minor for part in parts) == sum(row.total_minor for row in rows)
    assert sum(part.tax_minor for part in parts) == tax
    assert sorted(key for part in parts for key in part.lines) == [(1, row.line) for row in rows]
    assert all(0 <= part.tax_minor <= part.due_minor for part in parts)


@given(lines)
def test_the_tax_of_a_bill_is_what_its_declared_rule_says(rows: list[BillLine]) -> None:
    def exact(amount: int, rate: int) -> Fraction:
        return Fraction(amount * rate, 10_000 + rate)

    def half_up(value: Fraction) -> int:
        return (2 * value.numerator + value.denominator) // (2 * value.denominator)

    per_line = sum(half_up(exact(row.total_minor, row.basis_points or 0)) for row in rows)
    assert bill_tax(rows, Rounding.LINE) == per_line
    classes = {row.basis_points or 0 for row in rows}
    per_bill = sum(
        half_up(exact(sum(row.total_minor for row in rows if row.basis_points == rate), rate))
        for rate in classes
    )
    assert bill_tax(rows, Rounding.BILL) == per_bill
    assert bill_tax(rows, Rounding.BILL) <= sum(row.total_minor for row in rows)
