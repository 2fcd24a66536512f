"""What staff may do in the plain model: for each kind of action when it is impossible, and what it does.

The names and arguments are those of ``bench.staff.Action``. An action that was done although it was
impossible, or refused although it was possible, or that says something else than the model, is a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.history.events import CANCELLED, NEW, PREPARING, READY, SERVED, Acted, Violation
from bench.history.house import OPEN, SEALED, SETTLED, Booking, House, Party, Payment, Portion

Args = Mapping[str, Any]
TaxOf = Callable[[Party], int]  # the tax contained in all a party owes
_NEXT = {
    NEW: {PREPARING, READY, SERVED},
    PREPARING: {READY, SERVED, NEW},
    READY: {SERVED, PREPARING},
    SERVED: {READY},
    CANCELLED: set(),
}
_WHEN_DONE = {"book": "DOUBLE_BOOKED", "pay": "OVERPAID", "refund": "OVERPAID", "void": "OVERPAID"}


@dataclass(frozen=True, slots=True)
class Staff:
    """Judges and replays staff's actions on a house."""

    house: House
    tax_of: TaxOf

    def done(self, acted: Acted) -> Iterator[Violation]:
        """Replay an action that was committed."""
        impossible = getattr(self, f"_no_{acted.kind}")(acted.args)
        name = f"LSN {acted.lsn}: {acted.kind} {dict(acted.args)}"
        if impossible:
            code = _WHEN_DONE.get(acted.kind, "IMPOSSIBLE")
            yield Violation(code, f"{name} was done although {impossible}")
            return
        for what, said, due in getattr(self, f"_do_{acted.kind}")(acted.args, acted.result, acted.lsn):
            if said != due:
                yield Violation("STAFF_MONEY", f"{name}: {what} {said}, the model has {due}")

    def refused(self, acted: Acted) -> Iterator[Violation]:
        """Judge an action that was refused."""
        if not getattr(self, f"_no_{acted.kind}")(acted.args):
            name = f"{acted.kind} {dict(acted.args)} after LSN {acted.after_lsn}"
            yield Violation("FALSE_REFUSAL", f"{name} was refused with {acted.code}")

    # ------------------------------------------------------------------ parties

    def _away(self, seating: int) -> str:
        party = self.house.parties.get(seating)
        return "" if party is not None and party.open else f"seating {seating} is not open"

    def _taken(self, table: str) -> str:
        if table in self.house.shut:
            return f"table {table} is closed"
        return f"table {table} is taken" if table in self.house.at else ""

    def _no_seat(self, args: Args) -> str:
        return self._taken(args["table"])

    def _do_seat(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        yield "fresh seating", result["seating"] in self.house.parties, False
        self.house.sit(result["seating"], args["table"])

    def _no_shut(self, args: Args) -> str:
        return self._taken(args["table"])

    def _do_shut(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.shut.add(args["table"])
        yield from ()

    def _no_reopen(self, _args: Args) -> str:
        return ""

    def _do_reopen(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.shut.discard(args["table"])
        yield from ()

    def _no_transfer(self, args: Args) -> str:
        return self._away(args["seating"]) or self._taken(args["table"])

    def _do_transfer(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        party = self.house.parties[args["seating"]]
        self.house.at.pop(party.table, None)
        party.table = args["table"]
        self.house.at[party.table] = party
        yield from ()

    def _no_merge(self, args: Args) -> str:
        seating, into = args["seating"], args["into"]
        if seating == into:
            return "they are one"
        bill = self.house.bill_of.get(seating)
        kept = bill is not None and any(p.bill == bill.number for p in self.house.payments.values())
        paid = kept or self.house.paid(into)
        return self._away(seating) or self._away(into) or ("one has paid" if paid else "")

    def _do_merge(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        house = self.house
        source, target = house.parties[args["seating"]], house.parties[args["into"]]
        dropped = house.bill_of.pop(source.number, None)
        if dropped is not None:
            del house.bills[dropped.number]
        for number in source.orders:
            house.orders[number].seating = target.number
        target.orders = sorted(target.orders + source.orders)
        target.total_minor += source.total_minor
        source.orders, source.total_minor = [], 0
        house.leave(source)
        yield "total", result["total_minor"], target.total_minor

    def _no_close(self, args: Args) -> str:
        away = self._away(args["seating"])
        if away:
            return away
        party, bill = self.house.parties[args["seating"]], self.house.bill_of.get(args["seating"])
        if bill is None:
            return "there is no bill" if party.total_minor else ""
        settled = bill.paid_minor == bill.total_minor == party.total_minor
        return "" if settled else "it is not paid"

    def _do_close(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        bill = self.house.bill_of.get(args["seating"])
        if bill is not None:
            bill.state = SETTLED
        self.house.leave(self.house.parties[args["seating"]])
        yield from ()

    # ------------------------------------------------------------------ bills

    def _no_bill(self, args: Args) -> str:
        away = self._away(args["seating"])
        return away or ("" if self.house.parties[args["seating"]].orders else "nothing was ordered")

    def _do_bill(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        party = self.house.parties[args["seating"]]
        bill = self.house.draw_up(party, result["bill"], self.tax_of(party))
        yield "tax", result["tax_minor"], bill.tax_minor
        yield "bill", result["bill"], bill.number
        yield "total", result["total_minor"], bill.total_minor
        yield "paid", result["paid_minor"], bill.paid_minor

    def _not_current(self, number: int) -> str:
        bill = self.house.bills.get(number)
        if bill is None or bill.state == SETTLED:
            return f"bill {number} is settled or gone"
        owed = self.house.parties[bill.seating].total_minor
        return "more was ordered since" if bill.state == OPEN and owed != bill.total_minor else ""

    def _no_split(self, args: Args) -> str:
        stale = self._not_current(args["bill"])
        return stale or ("it is partly paid" if self.house.bills[args["bill"]].paid_minor else "")

    def _do_split(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        bill = self.house.bills[args["bill"]]
        dues = [part["due_minor"] for part in result["parts"]]
        yield "parts", len(dues), len(args["shares"])
        yield "dues", sum(dues), bill.total_minor
        yield "taxes", sum(part["tax_minor"] for part in result["parts"]), bill.tax_minor
        yield "fair", max(dues, default=0) - min(dues, default=0) <= 1 or len(set(args["shares"])) > 1, True

    def _no_pay(self, args: Args) -> str:
        stale = self._not_current(args["bill"])
        if stale:
            return stale
        bill = self.house.bills[args["bill"]]
        due = bill.total_minor - bill.paid_minor
        return "" if 0 < args["amount_minor"] <= due else f"{due} is due"

    def _do_pay(self, args: Args, result: Args, lsn: int) -> Iterator[tuple[str, Any, Any]]:
        bill = self.house.bills[args["bill"]]
        self.house.payments[lsn] = Payment(bill.number, args["amount_minor"])
        bill.paid_minor += args["amount_minor"]
        if bill.state == SEALED and bill.paid_minor == bill.total_minor:
            bill.state = SETTLED
        yield "paid", result["paid_minor"], bill.paid_minor
        yield "due", result["due_minor"], bill.total_minor - bill.paid_minor
        yield "state", result["state"], bill.state

    def _no_refund(self, args: Args) -> str:
        payment = self.house.payments.get(args["payment"])
        left = payment.amount_minor - payment.refunded_minor if payment is not None else 0
        return "" if 0 < args["amount_minor"] <= left else f"{left} can be refunded"

    def _do_refund(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        payment = self.house.payments[args["payment"]]
        bill = self.house.bills[payment.bill]
        payment.refunded_minor += args["amount_minor"]
        bill.paid_minor -= args["amount_minor"]
        yield "paid", result["paid_minor"], bill.paid_minor

    # ------------------------------------------------------------------ the kitchen

    def _line(self, args: Args) -> Portion | None:
        order = self.house.orders.get(args["order"])
        return order.lines.get(args["line"]) if order is not None else None

    def _no_cook(self, args: Args) -> str:
        line = self._line(args)
        if line is None:
            return "there is no such line"
        return "" if args["state"] in _NEXT[line.state] else f"the line is in state {line.state}"

    def _do_cook(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.orders[args["order"]].lines[args["line"]].state = args["state"]
        yield from ()

    def _no_course(self, args: Args) -> str:
        return "there is no such line" if self._line(args) is None else ""

    def _do_course(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.orders[args["order"]].lines[args["line"]].course = args["course"]
        yield from ()

    def _no_fire(self, args: Args) -> str:
        away = self._away(args["seating"])
        return away or ("" if self.house.waiting(args["seating"], args["course"]) else "nothing waits for it")

    def _do_fire(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        due = self.house.waiting(args["seating"], args["course"])
        self.house.fired |= {(number, args["course"]) for number in due}
        yield "orders", result["orders"], due

    def _no_void(self, args: Args) -> str:
        line = self._line(args)
        if line is None:
            return "there is no such line"
        party = self.house.parties[self.house.orders[args["order"]].seating]
        bill = self.house.bill_of.get(party.number)
        if line.state == CANCELLED or not party.open or (bill is not None and bill.state != OPEN):
            return "it is cancelled, or on a closed bill"
        too_much = party.total_minor - line.amount_minor < self.house.paid(party.number)
        return "more than the rest is paid" if too_much else ""

    def _do_void(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        house, order = self.house, self.house.orders[args["order"]]
        line, party = order.lines[args["line"]], house.parties[order.seating]
        if line.state == NEW and line.item in house.counted:
            house.level[line.item] += line.quantity
        line.state = CANCELLED
        party.total_minor -= line.amount_minor
        bill = house.bill_of.get(party.number)
        if bill is not None:
            house.draw_up(party, bill.number, self.tax_of(party))
        yield "amount", result["amount_minor"], line.amount_minor

    def _no_stock(self, _args: Args) -> str:
        return ""

    def _do_stock(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.counted.add(args["item"])
        self.house.level[args["item"]] = args["count"]
        yield from ()

    # ------------------------------------------------------------------ bookings

    def _no_book(self, args: Args) -> str:
        held = self.house.held(tuple(args["tables"]), args["start_at"], args["end_at"])
        return f"booking {held} keeps a table" if held else ""

    def _do_book(self, args: Args, result: Args, lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self.house.bookings[lsn] = Booking(tuple(args["tables"]), args["start_at"], args["end_at"])
        yield "booking", result["booking"], lsn

    def _unbooked(self, number: int) -> str:
        booking = self.house.bookings.get(number)
        return "" if booking is not None and booking.state == "booked" else f"booking {number} is over"

    def _no_arrive(self, args: Args) -> str:
        over = self._unbooked(args["booking"])
        if over:
            return over
        tables = self.house.bookings[args["booking"]].tables
        return "" if any(not self._taken(table) for table in tables) else "every table is taken"

    def _do_arrive(self, args: Args, result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        booking = self.house.bookings[args["booking"]]
        free = sorted(table for table in booking.tables if not self._taken(table))
        booking.state, booking.seating = "seated", result["seating"]
        self.house.sit(result["seating"], result["table"])
        yield "table", result["table"], free[0]

    def _release(self, args: Args, state: str) -> None:
        booking = self.house.bookings[args["booking"]]
        booking.state, booking.live = state, False

    def _no_unbook(self, args: Args) -> str:
        return self._unbooked(args["booking"])

    def _do_unbook(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self._release(args, "cancelled")
        yield from ()

    def _no_missed(self, args: Args) -> str:
        return self._unbooked(args["booking"])

    def _do_missed(self, args: Args, _result: Args, _lsn: int) -> Iterator[tuple[str, Any, Any]]:
        self._release(args, "no_show")
        yield from ()
