"""Answers are kept as long as promised, then go in bounded batches; what they were about stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from database_kit import BROKEN_RULE, KINDS, transaction, url_for
from order_kit import ESPRESSO, NOW_S, SITE, House, open_house, order_op

from server.storage.retention import BATCH, PruneAnswers
from server.wire.ops import Line

COFFEE = Line(ESPRESSO, 1)


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    made = open_house(tmp_path, url_for(request.param, open_house))
    yield made
    made.close()


def prune(house: House, before_s: int, at_most: int = BATCH) -> int:
    with transaction(house.connection):
        return PruneAnswers(SITE, before_s, at_most)(house.connection)


def test_an_answer_stays_until_its_time_and_then_goes(house: House) -> None:
    house.apply(order_op(COFFEE, total=260))
    assert prune(house, NOW_S) == 0
    assert house.apply(order_op(COFFEE, total=260)).repeated
    assert prune(house, NOW_S + 1) == 1
    assert house.one("SELECT COUNT(*) FROM answer") == 0
    assert house.one("SELECT COUNT(*) FROM orders") == 1


def test_batches_are_bounded_and_take_the_oldest_first(house: House) -> None:
    for number in range(1, 6):
        house.apply(order_op(COFFEE, total=260, number=number))
    assert [prune(house, NOW_S + 1, at_most=2) for _ in range(4)] == [2, 2, 1, 0]
    house.apply(order_op(COFFEE, total=260, number=6))
    assert prune(house, NOW_S, at_most=2) == 0


def test_an_order_whose_answer_is_gone_cannot_be_entered_again(house: House) -> None:
    house.apply(order_op(COFFEE, total=260))
    prune(house, NOW_S + 1)
    with pytest.raises(BROKEN_RULE):
        house.apply(order_op(COFFEE, total=260))
    assert house.one("SELECT COUNT(*) FROM orders") == 1
