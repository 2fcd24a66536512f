"""A whole evening in any order, against a pure model: who sits where, what each owes, what was paid."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from house_kit import DEVICE, OTHER_DEVICE, OTHER_TABLE, SITE, TABLE, Line, Status, staffed_house
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from order_kit import ESPRESSO, WATER

from server.domain.errors import HouseError
from server.domain.states import LineState
from server.service import views
from server.service.change import Change
from server.wire.ops import RejectCode

PRICES = {ESPRESSO: 260, WATER: 300}
ALL_TABLES = (TABLE, OTHER_TABLE, "6")
devices = st.sampled_from([DEVICE, OTHER_DEVICE])
picks = st.integers(0, 59)  # which table: mostly one where somebody sits


@dataclass
class Party:
    """An open seating of the model: lines by (order, line) are [amount, state]; a bill when one was made."""

    lines: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    bill: int = 0
    billed_minor: int = 0
    paid_minor: int = 0
    ordered: bool = False

    @property
    def total_minor(self) -> int:
        """What the live lines cost."""
        return sum(amount for amount, state in self.lines.values() if state != LineState.CANCELLED)


class Evening(RuleBasedStateMachine):
    """Two terminals and the staff of a three-table house."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="evening-"))
        self.house = staffed_house(self.folder)
        self.guests = {device: self.house.guest(device) for device in (DEVICE, OTHER_DEVICE)}
        self.parties: dict[str, Party] = {}
        self.orders: dict[int, tuple[str, bytes]] = {}
        self.closed_minor = 0
        self.stock = {ESPRESSO: 12}
        self.lsn: int = self.house.run(self.house.service.set_stock("boss", ESPRESSO, 12))["lsn"]

    def table_of(self, pick: int) -> str:
        """A table with a party three times out of four, any table otherwise."""
        taken = sorted(self.parties)
        return taken[pick % len(taken)] if taken and pick % 4 else ALL_TABLES[pick % 3]

    @initialize(quantity=st.integers(1, 3))
    def two_parties_have_ordered(self, quantity: int) -> None:
        """The house opens with guests at both terminals."""
        for device in (DEVICE, OTHER_DEVICE):
            self.order(device, WATER, quantity)

    def seating_at(self, table: str) -> int:
        """The id of the open seating at a table, 0 for none."""
        rows = self.house.rows(f"SELECT id FROM seating WHERE table_id = '{table}' AND closed_at IS NULL")
        return int(rows[0][0]) if rows else 0

    def try_(self, job: Change, *, possible: bool) -> dict[str, object] | None:
        """Run a staff job that must succeed exactly when the model says so."""
        try:
            result = self.house.run(job)
        except HouseError:
            assert not possible
            return None
        assert possible
        self.lsn += 1
        assert result["lsn"] == self.lsn
        return result

    @rule(device=devices, item=st.sampled_from(sorted(PRICES)), quantity=st.integers(1, 3))
    def order(self, device: str, item: int, quantity: int) -> None:
        """A guest orders one line."""
        guest = self.guests[device]
        reply = guest.order(Line(item, quantity), total=PRICES[item] * quantity)
        self.lsn += 1
        party = self.parties.setdefault(guest.table, Party())
        left = self.stock.get(item)
        if left is not None and left < quantity:
            assert reply.status == Status.SOLD_OUT
            return
        assert (reply.status, reply.lsn) == (Status.COMMITTED, self.lsn)
        if left is not None:
            self.stock[item] = left - quantity
        party.ordered = True
        party.lines[reply.order_number, 0] = [PRICES[item] * quantity, LineState.NEW]
        self.orders[reply.order_number] = (device, reply.op_id)

    @rule(device=devices, choice=st.integers(0, 30))
    def cancel(self, device: str, choice: int) -> None:
        """A guest cancels some order; possible while it is theirs, at their table, unpaid and not begun."""
        if not self.orders:
            return
        number = sorted(self.orders)[choice % len(self.orders)]
        owner, op_id = self.orders[number]
        guest = self.guests[device]
        party = self.parties.setdefault(guest.table, Party())
        line = party.lines.get((number, 0))
        possible = owner == device and line is not None and line[1] == LineState.NEW and not party.paid_minor
        reply = guest.cancel(op_id)
        self.lsn += 1
        assert (reply.status == Status.COMMITTED) == possible, RejectCode(reply.arg)
        if possible and line is not None:
            line[1] = LineState.CANCELLED
            self.give_back(number, 0)

    def give_back(self, number: int, line: int) -> None:
        """Stock of a line that was never begun."""
        item, quantity = self.house.rows(
            f"SELECT item, quantity FROM order_line WHERE order_number = {number} AND line = {line}"
        )[0]
        if item in self.stock:
            self.stock[item] += quantity

    @rule(pick=picks)
    def seat(self, pick: int) -> None:
        """Staff seat a party."""
        table = self.table_of(pick)
        if self.try_(self.house.service.open_seating("anna", table), possible=table not in self.parties):
            self.parties[table] = Party()

    @rule(pick=picks, to=st.sampled_from(ALL_TABLES))
    def transfer(self, pick: int, to: str) -> None:
        """Staff move a party."""
        table = self.table_of(pick)
        seating = self.seating_at(table)
        possible = bool(seating) and to not in self.parties
        if self.try_(self.house.service.transfer("anna", seating, to), possible=possible):
            self.parties[to] = self.parties.pop(table)

    @rule(pick=picks, other=picks)
    def merge(self, pick: int, other: int) -> None:
        """Staff put two parties together."""
        table, into = self.table_of(pick), self.table_of(other)
        seating, target = self.seating_at(table), self.seating_at(into)
        possible = bool(seating and target) and table != into
        possible = possible and not self.parties[table].paid_minor and not self.parties[into].paid_minor
        if self.try_(self.house.service.merge("anna", seating, target), possible=possible):
            source = self.parties.pop(table)
            self.parties[into].lines.update(source.lines)
            self.parties[into].ordered |= source.ordered

    @rule(pick=picks, choice=st.integers(0, 30), step=st.sampled_from([1, 2, 3]))
    def cook(self, pick: int, choice: int, step: int) -> None:
        """The kitchen moves a line forward."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        if party is None or not party.lines:
            return
        key = sorted(party.lines)[choice % len(party.lines)]
        line = party.lines[key]
        possible = line[1] != LineState.CANCELLED and (line[1] < step or line[1] == step + 1)
        if self.try_(self.house.service.set_line_state("cook", *key, LineState(step)), possible=possible):
            line[1] = step

    @rule(pick=picks, choice=st.integers(0, 30))
    def void(self, pick: int, choice: int) -> None:
        """Staff take a line off."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        if party is None or not party.lines:
            return
        key = sorted(party.lines)[choice % len(party.lines)]
        line = party.lines[key]
        possible = line[1] != LineState.CANCELLED
        possible = possible and party.total_minor - line[0] >= party.paid_minor
        if self.try_(self.house.service.void_line("anna", *key, "wrong"), possible=possible):
            if line[1] == LineState.NEW:
                self.give_back(*key)
            line[1] = LineState.CANCELLED
            if party.bill:
                party.billed_minor = party.total_minor

    @rule(pick=picks)
    def draw_up(self, pick: int) -> None:
        """Staff make the bill."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        possible = party is not None and party.ordered
        result = self.try_(self.house.service.bill("anna", self.seating_at(table)), possible=possible)
        if result is not None and party is not None:
            assert result["total_minor"] == party.total_minor
            party.bill, party.billed_minor = int(str(result["bill"])), party.total_minor

    @rule(pick=picks, amount=st.one_of(st.integers(1, 1200), st.just(0)))
    def pay(self, pick: int, amount: int) -> None:
        """Somebody pays."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        if party is None or not party.bill:
            return
        due = party.billed_minor - party.paid_minor
        amount = min(amount, due + 1) or due  # 0: all of it
        possible = 0 < amount <= due and party.billed_minor == party.total_minor
        if self.try_(self.house.service.pay("anna", party.bill, amount, "cash"), possible=possible):
            party.paid_minor += amount

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        """Staff end a seating."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        billed = party is not None and (not party.bill or party.billed_minor == party.total_minor)
        possible = party is not None and billed and party.paid_minor == party.total_minor
        if self.try_(self.house.service.close("anna", self.seating_at(table)), possible=possible):
            self.closed_minor += self.parties.pop(table).paid_minor

    @rule(device=devices)
    def seal(self, device: str) -> None:
        """A guest asks for the bill and seals it at once: the seating ends."""
        guest = self.guests[device]
        party = self.parties.setdefault(guest.table, Party())
        asked = guest.ask_bill()
        self.lsn += 1
        assert (asked.status == Status.COMMITTED) == party.ordered
        if asked.status != Status.COMMITTED:
            return
        assert asked.total_minor == party.total_minor
        assert guest.seal(asked).status == Status.COMMITTED
        self.lsn += 1
        self.closed_minor += self.parties.pop(guest.table).paid_minor

    @rule()
    def power_cut(self) -> None:
        """The server starts again on the same file."""
        self.house.house.connection.close()
        self.house.house.connection = self.house.house.database.driver_connection()

    @invariant()
    def the_database_is_the_model(self) -> None:
        """Open tables, totals, payments, stock; one LSN for every change."""
        connection = self.house.house.connection
        shown = {entry["table"]: entry["total_minor"] for entry in views.seatings(connection, SITE)}
        assert shown == {table: party.total_minor for table, party in self.parties.items()}
        paid = self.house.rows("SELECT COALESCE(SUM(paid_minor), 0) FROM bill")[0][0]
        assert paid == self.closed_minor + sum(party.paid_minor for party in self.parties.values())
        assert dict(self.house.rows("SELECT item, count FROM stock")) == self.stock
        assert views.newest_lsn(connection, SITE) == self.lsn

    def teardown(self) -> None:
        """Remove the file."""
        self.house.house.close()
        shutil.rmtree(self.folder)


TestEvening = Evening.TestCase
TestEvening.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
