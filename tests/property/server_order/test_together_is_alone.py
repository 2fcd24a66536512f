"""Orders answered as groups on PostgreSQL are answered, and stored, as one by one on SQLite."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from database_kit import POSTGRESQL, SQLITE, transaction, url_for
from history_kit import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from order_kit import DEVICE, ESPRESSO, OTHER_DEVICE, SITE, WATER, House, open_house, order_op

from server.ordering.apply import SessionGone
from server.ordering.together import OrderGroups
from server.storage import admin
from server.storage.ledger import Ledger
from server.wire.ops import Line, Reply

PRICES = {ESPRESSO: 260, WATER: 300}
TABLES = {DEVICE: "4", OTHER_DEVICE: "5"}
# device, item, quantity, wrong by, number of the op (few, so that some are sent again), session replaced
orders = st.tuples(
    st.sampled_from(sorted(TABLES)), st.sampled_from(sorted(PRICES)), st.integers(1, 3),
    st.sampled_from([0, 0, 0, 0, 1]), st.integers(1, 12), st.sampled_from([False] * 9 + [True]),
)  # fmt: skip
groups = st.lists(st.lists(orders, min_size=1, max_size=8), min_size=1, max_size=4)
Order = tuple[str, int, int, int, int, bool]
Stored = tuple[object, ...]


def played(kind: str, evening: list[list[Order]]) -> tuple[list[Reply | None], Stored]:
    """Every answer (None: the session was gone) and what is stored in the end."""
    with tempfile.TemporaryDirectory() as folder:
        house = open_house(Path(folder), url_for(kind, open_house))
        with closing(house):
            admin.set_stock(house.database, SITE, ESPRESSO, 9)
            replies = [reply for group in evening for reply in answered(house, group)]
            ledger = Ledger(house.database.path)
            chains = house.connection.execute(
                "SELECT seating, device, head, first_op, first_lsn, count FROM device_chain ORDER BY 1, 2"
            ).fetchall()
            stored = (
                ledger.answers(SITE), ledger.orders(SITE), ledger.stock(SITE), ledger.seatings(SITE), chains,
            )  # fmt: skip
    return replies, stored


def answered(house: House, group: list[Order]) -> list[Reply | None]:
    """One group in one transaction, as the writer of its database runs it."""
    jobs = []
    for device, item, quantity, wrong, number, gone in group:
        op = order_op(
            Line(item, quantity), total=PRICES[item] * quantity + wrong, table=TABLES[device], number=number
        )
        jobs.append(house.job(op, device=device, sid=b"gone" if gone else None))
    together = house.database.dialect == POSTGRESQL
    with transaction(house.connection, shared=together):
        house.catalogue.reload(house.connection)
        if together:
            outcomes = OrderGroups().run(house.connection, jobs)
            assert all(one.error is None or isinstance(one.error, SessionGone) for one in outcomes)
            return [None if one.value is None else one.value.reply for one in outcomes]
        replies: list[Reply | None] = []
        for job in jobs:
            try:
                replies.append(job(house.connection).reply)
            except SessionGone:
                replies.append(None)
        return replies


@given(groups)
@settings(max_examples=examples(20), deadline=None)
def test_a_group_means_what_its_orders_mean_alone(evening: list[list[Order]]) -> None:
    assert played(POSTGRESQL, evening) == played(SQLITE, evening)
