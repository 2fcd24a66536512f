"""The plain model of a site: replayed change by change in LSN order, guests' answers and staff's actions.

It knows nothing of the server's code. Money is a sum of integers, stock a dictionary, an order its lines.
What a line costs is taken from the store, where it never changes, and judged against what its guest saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction

from bench.history.events import (
    CANCELLED,
    NEW,
    Acted,
    Answer,
    History,
    MenuPrices,
    Reply,
    StoredLine,
    Submitted,
    Violation,
)
from bench.history.house import OPEN, SEALED, SETTLED, House, Order, Party, Portion
from bench.history.staff import Staff

COMMITTED, REPRICE, SOLD_OUT, TABLE_CLOSED, REJECTED = 0, 1, 2, 3, 5  # reply statuses on the wire


class Model:
    """One replay. ``replay`` yields what contradicts the model on the way; ``house`` is what is left."""

    def __init__(self, history: History) -> None:
        self.house = House()
        self._history = history
        self._wanted = {(op.device, op.op_id): op for op in history.submitted}
        self._stored = {order.number: order for order in history.orders}
        self._menus = [menu for menu in history.menus.values() if menu.tax_basis_points]
        self._restocks = sorted(history.restocked, key=lambda change: change.lsn)
        self._staff = Staff(self.house, self._bill_tax)
        self.house.counted = {change.item for change in history.restocked}

    def replay(self) -> Iterator[Violation]:
        """Every contradiction."""
        refused: dict[int, list[Acted]] = defaultdict(list)
        changes: list[tuple[int, Answer | Acted]] = [(one.reply.lsn, one) for one in self._history.answers]
        for acted in self._history.acted:
            if acted.lsn:
                changes.append((acted.lsn, acted))
            elif acted.after_lsn is not None:
                refused[acted.after_lsn].append(acted)
        changes.sort(key=lambda change: change[0])
        for lsn, change in [(0, None), *changes]:
            if change is not None:
                self._restock_before(lsn)
                yield from self._answer(change) if isinstance(change, Answer) else self._staff.done(change)
            for acted in refused.get(lsn, ()):
                yield from self._staff.refused(acted)
        self._restock_before(None)

    def _restock_before(self, lsn: int | None) -> None:
        while self._restocks and (lsn is None or self._restocks[0].lsn < lsn):
            change = self._restocks.pop(0)
            self.house.level[change.item] += change.delta

    def _answer(self, answer: Answer) -> Iterator[Violation]:
        op = self._wanted.get((answer.device, answer.op_id))
        if op is None:
            yield Violation("NOBODY_ORDERED", f"{_name(answer)} is stored and nobody submitted it")
            return
        party = self.house.at.get(op.table)
        if party is None and answer.seating not in self.house.parties:
            party = self.house.sit(answer.seating, op.table)
        elif party is None or party.number != answer.seating:
            yield Violation("OTHER_SEATING", f"{_name(answer)} is stored for seating {answer.seating}")
            party = party or self.house.parties[answer.seating]
        if answer.reply.status == COMMITTED:
            yield from self._committed(op, answer, party)
        elif self._history.honest:
            yield from self._refused(op, answer, party)

    # ------------------------------------------------------------------ committed

    def _committed(self, op: Submitted, answer: Answer, party: Party) -> Iterator[Violation]:
        reply, name = answer.reply, _name(answer)
        impossible = self._why_rejected(op, party)
        if impossible:
            yield Violation("IMPOSSIBLE", f"{name}: {op.kind} was committed although {impossible}")
        elif op.kind == "call":
            if reply.order_number:
                yield Violation("ORDER_NUMBER", f"{name}: a call got order number {reply.order_number}")
        elif op.kind == "bill":
            yield from self._bill(op, reply, party, name)
        elif op.kind == "pay":
            yield from self._pay(op, reply, party, name)
        else:
            yield from self._taken(op, reply, party, name)

    def _taken(self, op: Submitted, reply: Reply, party: Party, name: str) -> Iterator[Violation]:
        """An order, or a change or cancellation of one."""
        if op.kind == "order" and op.table in self.house.shut:
            yield Violation("CLOSED_TABLE", f"{name} was committed although table {op.table} is closed")
        if reply.total_minor != op.total_minor:
            yield Violation("OTHER_TOTAL", f"{name}: {op.total_minor} shown, {reply.total_minor} committed")
        menu = self._history.menus.get(op.menu_version)
        if menu is not None and menu.total_minor(op.lines) != op.total_minor:
            yield Violation("SHOWN_PRICE", f"{name}: the guest saw {op.total_minor}")
        if op.kind == "order":
            order = Order(len(self.house.orders) + 1, party.number)
            self.house.orders[order.number] = self.house.by_op[op.device, op.op_id] = order
            party.orders.append(order.number)
        else:
            order = self.house.by_op[op.device, op.target]
        if reply.order_number != order.number:
            yield Violation("ORDER_NUMBER", f"{name} has number {reply.order_number}, {order.number} was due")
        before = order.total_minor
        yield from self._take(_more(op, order), reply)
        for line in order.lines.values():
            line.state = CANCELLED
        yield from self._add_lines(op, order, name)
        party.total_minor += order.total_minor - before

    def _take(self, more: Counter[int], reply: Reply) -> Iterator[Violation]:
        for item, count in sorted(more.items()):
            if item in self.house.counted:
                self.house.level[item] -= count
                if count > 0 and self.house.level[item] < 0:
                    left = self.house.level[item]
                    yield Violation("OVERSOLD", f"item {item} fell to {left} at LSN {reply.lsn}")

    def _add_lines(self, op: Submitted, order: Order, name: str) -> Iterator[Violation]:
        """The lines of an op as they were stored, judged against what the guest wanted and saw."""
        stored = self._stored.get(order.number)
        if stored is None or (op.kind == "order" and (stored.device, stored.op_id) != (op.device, op.op_id)):
            yield Violation("ORDERS", f"{name}: order {order.number} is not stored as this op's")
            return
        first = len(order.lines)
        found = [line for line in stored.lines if first <= line.line < first + len(op.lines)]
        if tuple(line.wanted for line in found) != op.lines:
            yield Violation("OTHER_LINES", f"{name}: {op.lines} wanted, {found} stored")
        total = sum(line.total_minor for line in found)
        wrong = [line for line in found if line.quantity * line.unit_minor != line.total_minor]
        if wrong or total != op.total_minor:
            yield Violation("MONEY", f"{name}: lines {total}, confirmed {op.total_minor}")
        taxes = tuple(line.tax_minor for line in found)
        # An order may be priced on a later menu that costs the guest the same: any may explain its tax.
        if self._menus and all(taxes != expected_tax(menu, found) for menu in self._menus):
            yield Violation("TAX", f"{name}: tax {taxes}")
        for line in found:
            order.lines[line.line] = Portion(line.item, line.quantity, line.total_minor)

    def _bill(self, op: Submitted, reply: Reply, party: Party, name: str) -> Iterator[Violation]:
        bill = self.house.draw_up(party, reply.arg, self._bill_tax(party))
        bill.device, bill.request = op.device, op.op_id
        if (reply.arg, reply.total_minor) != (bill.number, bill.total_minor):
            yield Violation("BILL", f"{name}: bill {reply.arg} of {reply.total_minor}, {bill} was due")

    def _pay(self, op: Submitted, reply: Reply, party: Party, name: str) -> Iterator[Violation]:
        bill = self.house.bills[op.bill]
        bill.state = SETTLED if bill.paid_minor == bill.total_minor else SEALED
        if reply.total_minor != bill.total_minor:
            yield Violation("BILL", f"{name}: {reply.total_minor} closed, {bill.total_minor} was due")
        self.house.leave(party)

    def _bill_tax(self, party: Party) -> int:
        """The tax in all a party owes, by the rule of the menus (they share one in a run)."""
        if not self._menus:
            return 0
        menu, gross, tax = self._menus[0], Counter[int](), 0
        for line in self.house.live_lines(party):
            rate = menu.tax_basis_points.get(line.item, 0)
            gross[rate] += line.amount_minor
            tax += _contained(line.amount_minor, rate)
        return sum(_contained(sum_, rate) for rate, sum_ in gross.items()) if menu.rounds_per_bill else tax

    # ------------------------------------------------------------------ refused

    def _why_rejected(self, op: Submitted, party: Party) -> str:
        """Why an honest op cannot be done now, "" if it can."""
        if op.kind in ("change", "cancel"):
            return self._why_fixed(self.house.by_op.get((op.device, op.target)), party)
        if op.kind == "bill":
            return "" if party.orders else "nothing was ordered"
        if op.kind == "pay":
            bill = self.house.bills.get(op.bill)
            if bill is None or bill.state != OPEN or bill.seating != party.number:
                return "there is no such open bill"
            if (bill.device, bill.request) != (op.device, op.target):
                return "another request drew it up"
            return "" if bill.total_minor == party.total_minor == op.total_minor else "it is of another sum"
        return ""

    def _why_fixed(self, order: Order | None, party: Party) -> str:
        if order is None or not order.live or order.seating != party.number:
            return "there is no such order here"
        if any(line.state != NEW for line in order.live):
            return "the kitchen has begun"
        return "the bill is partly paid" if self.house.paid(party.number) else ""

    def _refused(self, op: Submitted, answer: Answer, party: Party) -> Iterator[Violation]:
        """Who asks for what is possible is not refused, and pays another price only for a reason."""
        reply, name = answer.reply, _name(answer)
        impossible = self._why_rejected(op, party)
        if impossible:
            if reply.status != REJECTED:
                yield Violation("IMPOSSIBLE", f"{name}: {impossible}, answered with status {reply.status}")
        elif (reply.status == TABLE_CLOSED) != (op.kind == "order" and op.table in self.house.shut):
            yield Violation("CLOSED_TABLE", f"{name}: status {reply.status}, {self.house.shut} are closed")
        elif reply.status == REJECTED:
            yield Violation("FALSE_REJECT", f"{name} ({op.kind}) was rejected with code {reply.arg}")
        elif reply.status == REPRICE:
            menu = self._history.menus.get(reply.arg)
            asked = menu.total_minor(op.lines) if menu is not None else None
            if menu is not None and (asked != reply.total_minor or asked == op.total_minor):
                yield Violation("FALSE_REPRICE", f"{name}: {op.total_minor} shown, {reply.total_minor} asked")
        elif reply.status == SOLD_OUT and reply.arg in self.house.counted:
            more = _more(op, self.house.by_op.get((op.device, op.target)))
            asked, left = more[reply.arg], self.house.level[reply.arg]
            if asked <= left:
                yield Violation("FALSE_SOLD_OUT", f"{name}: item {reply.arg}, {asked} refused, {left} there")


def _name(answer: Answer) -> str:
    return f"{answer.device} {answer.op_id.hex()}"


def _more(op: Submitted, target: Order | None) -> Counter[int]:
    """What an op takes from stock, by item; negative where it gives back."""
    more: Counter[int] = Counter()
    for item, quantity, _ in op.lines:
        more[item] += quantity
    if target is not None:
        more.subtract(target.pieces())
    return more


def expected_tax(menu: MenuPrices, lines: Sequence[StoredLine]) -> tuple[int, ...]:
    """Tax of each line: gross x rate / (1 + rate), half up; per bill: of the running sum of its rate."""
    gross: Counter[int] = Counter()
    found = []
    for line in lines:
        rate = menu.tax_basis_points.get(line.item, 0)
        before = gross[rate] if menu.rounds_per_bill else 0
        gross[rate] += line.total_minor
        found.append(_contained(before + line.total_minor, rate) - _contained(before, rate))
    return tuple(found)


def _contained(gross_minor: int, rate: int) -> int:
    return int(Fraction(gross_minor * rate, 10_000 + rate) + Fraction(1, 2))
