"""The plain model of a site: orders, stock and bills, replayed answer by answer in LSN order.

It knows nothing of the server's code. Money is a sum of integers, stock a dictionary, an order its lines.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bench.history.events import Answer, History, Line, MenuPrices, Reply, StoredLine, Submitted, Violation

COMMITTED, REPRICE, SOLD_OUT, REJECTED = 0, 1, 2, 5  # reply statuses on the wire


@dataclass(slots=True)
class _Order:
    number: int
    table: str
    total_minor: int
    lines: tuple[Line, ...]


class Model:
    """One replay. ``replay`` yields what contradicts the model on the way and at the end."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._wanted = {(op.device, op.op_id): op for op in history.submitted}
        self._orders: dict[tuple[str, bytes], _Order] = {}
        self._level: dict[int, int] = defaultdict(int)
        self._counted = {change.item for change in history.restocked}
        self._bills: Counter[str] = Counter()
        self._restocks = sorted(history.restocked, key=lambda change: change.lsn)

    def replay(self) -> Iterator[Violation]:
        """Every contradiction."""
        for answer in sorted(self._history.answers, key=lambda answer: answer.reply.lsn):
            self._restock_before(answer.reply.lsn)
            op = self._wanted.get((answer.device, answer.op_id))
            if op is None:
                yield Violation("NOBODY_ORDERED", f"{_name(answer)} is stored and nobody submitted it")
            elif answer.reply.status == COMMITTED:
                yield from self._committed(op, answer)
            elif self._history.honest:
                yield from self._refused(op, answer)
        self._restock_before(None)
        yield from self._final_stock()
        yield from self._final_orders()
        for table, (total, _) in sorted(self._history.seatings.items()):
            if total != self._bills[table]:
                yield Violation("BILL", f"table {table}: bill {total}, orders {self._bills[table]}")

    def _restock_before(self, lsn: int | None) -> None:
        while self._restocks and (lsn is None or self._restocks[0].lsn < lsn):
            change = self._restocks.pop(0)
            self._level[change.item] += change.delta

    def _target(self, op: Submitted) -> _Order | None:
        """The live order a change or cancel is about."""
        order = self._orders.get((op.device, op.target))
        return order if order is not None and order.lines else None

    # ------------------------------------------------------------------ committed

    def _committed(self, op: Submitted, answer: Answer) -> Iterator[Violation]:
        reply, name = answer.reply, _name(answer)
        if answer.table != op.table:
            yield Violation("OTHER_TABLE", f"{name}: asked at {op.table}, stored for {answer.table}")
        if reply.total_minor != op.total_minor:
            yield Violation("OTHER_TOTAL", f"{name}: {op.total_minor} shown, {reply.total_minor} committed")
        if op.kind == "call":
            if reply.order_number:
                yield Violation("ORDER_NUMBER", f"{name}: a call got order number {reply.order_number}")
            return
        menu = self._history.menus.get(op.menu_version)
        if menu is not None and menu.total_minor(op.lines) != op.total_minor:
            yield Violation("SHOWN_PRICE", f"{name}: the guest saw {op.total_minor}")
        target = None
        due = len(self._orders) + 1
        if op.kind != "order":
            target = self._target(op)
            if target is None:
                yield Violation("NOTHING_TO_CHANGE", f"{name}: {op.kind} of an order that is not there")
                return
            due = target.number
        if reply.order_number != due:
            yield Violation("ORDER_NUMBER", f"{name} has number {reply.order_number}, {due} was due")
        yield from self._take(_more(op, target), reply)
        self._bills[op.table] += op.total_minor - (target.total_minor if target is not None else 0)
        if target is None:
            self._orders[op.device, op.op_id] = _Order(due, op.table, op.total_minor, op.lines)
        else:
            target.lines, target.total_minor = op.lines, op.total_minor

    def _take(self, more: Counter[int], reply: Reply) -> Iterator[Violation]:
        for item, count in sorted(more.items()):
            if item in self._counted:
                self._level[item] -= count
                if count > 0 and self._level[item] < 0:
                    left = self._level[item]
                    yield Violation("OVERSOLD", f"item {item} fell to {left} at LSN {reply.lsn}")

    # ------------------------------------------------------------------ refused

    def _refused(self, op: Submitted, answer: Answer) -> Iterator[Violation]:
        """Who asks for what is possible is not refused, and pays another price only for a reason."""
        reply, name = answer.reply, _name(answer)
        target = self._target(op) if op.kind in ("change", "cancel") else None
        if op.kind in ("change", "cancel") and target is None:
            if reply.status != REJECTED:
                yield Violation("NOTHING_TO_CHANGE", f"{name}: answered with status {reply.status}")
        elif reply.status == REJECTED:
            yield Violation("FALSE_REJECT", f"{name} ({op.kind}) was rejected with code {reply.arg}")
        elif reply.status == REPRICE:
            menu = self._history.menus.get(reply.arg)
            asked = menu.total_minor(op.lines) if menu is not None else None
            if menu is not None and (asked != reply.total_minor or asked == op.total_minor):
                yield Violation("FALSE_REPRICE", f"{name}: {op.total_minor} shown, {reply.total_minor} asked")
        elif reply.status == SOLD_OUT and reply.arg in self._counted:
            asked, left = _more(op, target)[reply.arg], self._level[reply.arg]
            if asked <= left:
                yield Violation("FALSE_SOLD_OUT", f"{name}: item {reply.arg}, {asked} refused, {left} there")

    # ------------------------------------------------------------------ at the end

    def _final_stock(self) -> Iterator[Violation]:
        for item in sorted(self._counted):
            stored = self._history.stock.get(item)
            if stored != self._level[item]:
                yield Violation("STOCK", f"item {item}: {stored} stored, the model has {self._level[item]}")

    def _final_orders(self) -> Iterator[Violation]:
        stored = {order.number: order for order in self._history.orders}
        if len(stored) != len(self._orders) or len(stored) != len(self._history.orders):
            yield Violation("ORDERS", f"{len(stored)} orders stored, {len(self._orders)} committed")
        menus = [menu for menu in self._history.menus.values() if menu.tax_basis_points]
        for (device, op_id), order in self._orders.items():
            found = stored.get(order.number)
            name = f"{device} {op_id.hex()}"
            if found is None or (found.device, found.op_id) != (device, op_id):
                yield Violation("ORDERS", f"{name}: order {order.number} is not stored as this op's")
                continue
            if tuple(line.wanted for line in found.lines) != order.lines or found.table != order.table:
                yield Violation("OTHER_LINES", f"{name}: {order.lines} wanted, {found.lines} stored")
            total = sum(line.total_minor for line in found.lines)
            wrong = [line for line in found.lines if line.quantity * line.unit_minor != line.total_minor]
            if wrong or not total == found.total_minor == order.total_minor:
                yield Violation(
                    "MONEY",
                    f"{name}: lines {total}, order {found.total_minor}, confirmed {order.total_minor}",
                )
            taxes = tuple(line.tax_minor for line in found.lines)
            # An order may be priced on a later menu that costs the guest the same: any may explain its tax.
            if menus and all(taxes != expected_tax(menu, found.lines) for menu in menus):
                yield Violation("TAX", f"{name}: tax {taxes}")


def _name(answer: Answer) -> str:
    return f"{answer.device} {answer.op_id.hex()}"


def _more(op: Submitted, target: _Order | None) -> Counter[int]:
    """What an op takes from stock, by item; negative where it gives back."""
    more: Counter[int] = Counter()
    for item, quantity, _ in op.lines:
        more[item] += quantity
    for item, quantity, _ in target.lines if target is not None else ():
        more[item] -= quantity
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
