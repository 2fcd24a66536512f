"""A whole evening in any order, against a pure model: who sits where, what each owes, what was paid.

The rules of guests and of the till; those of bookings, the menu and of crashes are in ``evening_more``.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from database_kit import SQLITE, url_for
from house_kit import DEVICE, OTHER_DEVICE, OTHER_TABLE, SITE, TABLE, Line, Status, staffed_house
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
    booking: int = 0
    gone: bool = False

    @property
    def total_minor(self) -> int:
        """What the live lines cost."""
        return sum(amount for amount, state in self.lines.values() if state != LineState.CANCELLED)


class Evening(RuleBasedStateMachine):
    """Two terminals and the staff of a three-table house."""

    kind = SQLITE

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="evening-"))
        self.url = url_for(self.kind, staffed_house)
        self.house = staffed_house(self.folder, self.url)
        self.guests = {device: self.house.guest(device) for device in (DEVICE, OTHER_DEVICE)}
        self.parties: dict[str, Party] = {}
        self.orders: dict[int, tuple[str, bytes]] = {}
        self.payments: dict[int, tuple[Party, list[int]]] = {}
        self.bookings: dict[int, tuple[list[str], int, int, list[str]]] = {}
        self.off_sale: set[int] = set()
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
        if item in self.off_sale or (left is not None and left < quantity):
            assert reply.status == Status.SOLD_OUT
            return
        assert (reply.status, reply.lsn) == (Status.COMMITTED, self.lsn)
        if left is not None:
            self.stock[item] = left - quantity
        party.ordered = True
        party.lines[reply.order_number, 0] = [PRICES[item] * quantity, LineState.NEW]
        self.orders[reply.order_number] = (device, reply.op_id)

    def own_line(self, device: str, number: int) -> tuple[int, int] | None:
        """The live line of an order, while its guest may still change it: theirs, at their table, unpaid and
        not begun.
        """
        party = self.parties.setdefault(self.guests[device].table, Party())
        live = [
            (key, line)
            for key, line in sorted(party.lines.items())
            if key[0] == number and line[1] != LineState.CANCELLED
        ]
        if self.orders[number][0] != device or party.paid_minor or len(live) != 1:
            return None
        return live[0][0] if live[0][1][1] == LineState.NEW else None

    @rule(device=devices, choice=st.integers(0, 30))
    def cancel(self, device: str, choice: int) -> None:
        """A guest cancels some order."""
        if not self.orders:
            return
        number = sorted(self.orders)[choice % len(self.orders)]
        guest = self.guests[device]
        line = self.own_line(device, number)
        reply = guest.cancel(self.orders[number][1])
        self.lsn += 1
        assert (reply.status == Status.COMMITTED) == (line is not None), RejectCode(reply.arg)
        if line is not None:
            self.parties[guest.table].lines[line][1] = LineState.CANCELLED
            self.give_back(*line)

    @rule(
        device=devices, choice=st.integers(0, 30), item=st.sampled_from(sorted(PRICES)),
        quantity=st.integers(1, 3),
    )  # fmt: skip
    def change(self, device: str, choice: int, item: int, quantity: int) -> None:
        """A guest has something else instead."""
        if not self.orders:
            return
        number = sorted(self.orders)[choice % len(self.orders)]
        guest = self.guests[device]
        line = self.own_line(device, number)
        before, pieces = self.pieces(*line) if line is not None else (0, 0)
        reply = guest.change(self.orders[number][1], Line(item, quantity), total=PRICES[item] * quantity)
        self.lsn += 1
        if line is None:
            assert reply.status == Status.REJECTED
            return
        more = quantity - pieces if item == before else quantity
        left = self.stock.get(item)
        if more > 0 and (item in self.off_sale or (left is not None and left < more)):
            assert reply.status == Status.SOLD_OUT
            return
        assert reply.status == Status.COMMITTED, RejectCode(reply.arg)
        for one, taken in ((before, -pieces), (item, quantity)):
            if one in self.stock:
                self.stock[one] -= taken
        party = self.parties[guest.table]
        party.lines[line][1] = LineState.CANCELLED
        party.lines[number, line[1] + 1] = [PRICES[item] * quantity, LineState.NEW]

    def pieces(self, number: int, line: int) -> tuple[int, int]:
        """Item and quantity of a line."""
        item, quantity = self.house.rows(
            f"SELECT item, quantity FROM order_line WHERE order_number = {number} AND line = {line}"
        )[0]
        return int(item), int(quantity)

    def give_back(self, number: int, line: int) -> None:
        """Stock of a line that was never begun."""
        item, quantity = self.pieces(number, line)
        if item in self.stock:
            self.stock[item] += quantity

    def leave(self, table: str) -> None:
        """A party goes; what it booked is free again."""
        party = self.parties.pop(table)
        party.gone = True
        self.closed_minor += party.paid_minor
        if party.booking:
            self.bookings[party.booking][3][0] = "gone"

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
            source = self.parties[table]
            self.leave(table)
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
        result = self.try_(self.house.service.pay("anna", party.bill, amount, "cash"), possible=possible)
        if result is not None:
            party.paid_minor += amount
            self.payments[int(str(result["payment"]))] = (party, [amount])

    @rule(choice=st.integers(0, 30), amount=st.integers(1, 900))
    def refund(self, choice: int, amount: int) -> None:
        """Somebody gets money back, also after having left."""
        if not self.payments:
            return
        payment = sorted(self.payments)[choice % len(self.payments)]
        party, left = self.payments[payment]
        job = self.house.service.refund("anna", payment, amount, "cold")
        if self.try_(job, possible=amount <= left[0]):
            left[0] -= amount
            party.paid_minor -= amount
            if party.gone:
                self.closed_minor -= amount

    @rule(pick=picks, shares=st.lists(st.integers(0, 5), min_size=1, max_size=3))
    def split(self, pick: int, shares: list[int]) -> None:
        """A party wants to pay in parts."""
        party = self.parties.get(self.table_of(pick))
        if party is None or not party.bill:
            return
        possible = not party.paid_minor and party.billed_minor == party.total_minor
        job = self.house.service.split("anna", party.bill, shares=shares)
        result = self.try_(job, possible=possible)
        if result is not None:
            dues = self.house.rows(f"SELECT due_minor FROM bill_part WHERE bill = {party.bill}")
            assert sum(due for (due,) in dues) == party.billed_minor

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        """Staff end a seating."""
        table = self.table_of(pick)
        party = self.parties.get(table)
        billed = party is not None and (not party.bill or party.billed_minor == party.total_minor)
        possible = party is not None and billed and party.paid_minor == party.total_minor
        if self.try_(self.house.service.close("anna", self.seating_at(table)), possible=possible):
            self.leave(table)

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
        self.leave(guest.table)

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
