"""Whatever is sent, resent, reordered or restocked: one effect per op, stock never negative, the same
answer for ever.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from database_kit import POSTGRESQL, SQLITE, url_for
from history_kit import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from order_kit import DEVICE, ESPRESSO, OTHER_DEVICE, SITE, WATER, House, a_price_list, open_house, order_op

from server.storage import admin
from server.storage.ledger import Ledger
from server.wire.ops import Line, Op, Reply, Status

TABLES = {DEVICE: "4", OTHER_DEVICE: "5"}
PRICES = {ESPRESSO: 260, WATER: 300}


class OrderHistory(RuleBasedStateMachine):
    """Two devices against a pure model of what must be stored."""

    kind = SQLITE

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="order-history-"))
        self.house: House = open_house(self.folder, url_for(self.kind, open_house))
        self.sent: list[tuple[str, Op]] = []
        self.replies: dict[tuple[str, bytes], Reply] = {}
        self.stock: dict[int, int] = {}
        self.number = 0
        self.menu_version = 1

    @rule(
        device=st.sampled_from(sorted(TABLES)),
        item=st.sampled_from(sorted(PRICES)),
        quantity=st.integers(1, 4),
        wrong=st.sampled_from([0, 0, 0, 1]),
    )
    def order(self, device: str, item: int, quantity: int, wrong: int) -> None:
        """A new order; sometimes with a wrong total."""
        self.number += 1
        total = PRICES[item] * quantity + wrong
        op = order_op(
            Line(item, quantity),
            total=total,
            table=TABLES[device],
            number=self.number,
            menu_version=self.menu_version,
        )
        self.sent.append((device, op))
        reply = self.house.apply(op, device=device).reply
        left = self.stock.get(item)
        if wrong:
            expected = Status.REPRICE
        elif left is not None and left < quantity:
            expected = Status.SOLD_OUT
        else:
            expected = Status.COMMITTED
            if left is not None:
                self.stock[item] = left - quantity
        assert reply.status == expected
        self.replies[device, op.op_id] = reply

    @rule(choice=st.randoms(use_true_random=False))
    def resend(self, choice) -> None:  # type: ignore[no-untyped-def]
        """Any op sent before, in any order: the same answer, byte for byte."""
        if self.sent:
            device, op = choice.choice(self.sent)
            answered = self.house.apply(op, device=device)
            assert answered.repeated
            assert answered.reply == self.replies[device, op.op_id]

    @rule(item=st.sampled_from(sorted(PRICES)), count=st.integers(0, 6))
    def restock(self, item: int, count: int) -> None:
        """Somebody counts an item."""
        admin.set_stock(self.house.database, SITE, item, count)
        self.stock[item] = count

    @rule()
    def publish(self) -> None:
        """A new menu with the same prices."""
        self.menu_version += 1
        self.house.publish(a_price_list(version=self.menu_version))

    @rule()
    def power_cut(self) -> None:
        """The server starts again on the same file."""
        self.house.connection.close()
        self.house.connection = self.house.database.driver_connection()

    @invariant()
    def the_ledger_is_the_history(self) -> None:
        """Exactly the committed orders, exactly the stock, answers in the order of their LSN."""
        ledger = Ledger(self.folder)
        committed = {key for key, reply in self.replies.items() if reply.status == Status.COMMITTED}
        assert {(order.device, order.op_id) for order in ledger.orders(SITE)} == committed
        assert ledger.stock(SITE) == self.stock
        assert [answer.lsn for answer in ledger.answers(SITE)] == list(range(1, len(self.replies) + 1))

    def teardown(self) -> None:
        """Remove the file."""
        self.house.close()
        shutil.rmtree(self.folder)


class PostgresOrderHistory(OrderHistory):
    """The same on PostgreSQL."""

    kind = POSTGRESQL


TestOrderHistory = OrderHistory.TestCase
TestOrderHistory.settings = settings(max_examples=examples(15), stateful_step_count=20, deadline=None)
TestPostgresOrderHistory = PostgresOrderHistory.TestCase
TestPostgresOrderHistory.settings = settings(max_examples=examples(3), stateful_step_count=20, deadline=None)
