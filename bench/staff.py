"""Staff as the simulation and the kill campaign play them: look at the house, then do one thing, mostly sane.

``decide`` is a pure function of what is seen and of a random source. Some of what it wants is impossible on
purpose or by the time it arrives: the house must refuse that, and the plain model judges both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.domain.states import LineState
from server.service.change import Change
from server.service.service import Service

Read = Callable[[str], Iterable[Any]]  # one statement -> its rows
SLOT_S = 1800
SLOTS = 8


@dataclass(frozen=True, slots=True)
class Action:
    """One change staff want; the kinds are those of `bench.history.staff`."""

    kind: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What staff see; seatings are (id, table, total), bills (bill, seating, state, total, paid), payments
    (payment, what can be refunded), lines (order, line, state), held (seating, course): parties and what
    they may be waiting for; closed: tables out of service.
    """

    tables: Sequence[str]
    seatings: Sequence[tuple[int, str, int]]
    bills: Sequence[tuple[int, int, str, int, int]] = ()
    payments: Sequence[tuple[int, int]] = ()
    bookings: Sequence[int] = ()
    lines: Sequence[tuple[int, int, int]] = ()
    held: Sequence[tuple[int, int]] = ()
    closed: Sequence[str] = ()


def look(read: Read, tables: Sequence[str]) -> Glimpse:
    """What is committed now, the newest of each kind; ``tables`` are the room's."""
    return Glimpse(
        tables,
        _rows(read, "SELECT id, table_id, total_minor FROM seating WHERE closed_at IS NULL ORDER BY id"),
        _rows(
            read,
            "SELECT bill, seating, state, total_minor, paid_minor FROM bill WHERE state <> 'settled' "
            "ORDER BY bill DESC LIMIT 12",
        ),
        _rows(
            read,
            "SELECT payment, amount_minor - refunded_minor FROM payment ORDER BY payment DESC LIMIT 8",
        ),
        [
            row[0]
            for row in read(
                "SELECT booking FROM booking WHERE state = 'booked' ORDER BY booking DESC LIMIT 8"
            )
        ],
        _rows(
            read,
            "SELECT order_number, line, state FROM order_line ORDER BY order_number DESC, line LIMIT 24",
        ),
        _rows(
            read,
            "SELECT DISTINCT o.seating, l.course FROM order_line l JOIN orders o "
            "ON o.site = l.site AND o.order_number = l.order_number "
            "WHERE l.course > 1 AND l.state = 0 ORDER BY o.seating DESC, l.course LIMIT 8",
        ),
        [row[0] for row in read("SELECT table_id FROM closed_table ORDER BY table_id")],
    )


def _rows(read: Read, sql: str) -> list[Any]:
    return [tuple(row) for row in read(sql)]


FLOOR: Mapping[str, int] = {"course": 8, "fire": 6, "shut": 2, "reopen": 3}  # what a head waiter does


@dataclass(slots=True)
class Staff:
    """Decides. ``day_s`` is the unix time bookings are around; ``counted`` are items whose stock is set."""

    draw: random.Random
    day_s: int
    counted: Sequence[int] = ()
    weights: Mapping[str, int] = field(
        default_factory=lambda: {
            "seat": 3, "transfer": 6, "merge": 5, "close": 9, "bill": 10, "split": 4, "pay": 14, "refund": 3,
            "cook": 20, "void": 5, "stock": 0, "book": 16, "arrive": 8, "unbook": 4, "missed": 2,
        }
    )  # fmt: skip

    def decide(self, seen: Glimpse) -> Action | None:
        """What to do next, None where there is nothing to do it with."""
        kinds = list(self.weights)
        kind = self.draw.choices(kinds, [self.weights[name] for name in kinds])[0]
        args = getattr(self, f"_{kind}")(seen)
        return None if args is None else Action(kind, args)

    # ------------------------------------------------------------------ parties

    def _free_table(self, seen: Glimpse) -> str:
        """A free table nine times of ten."""
        taken = {table for _, table, _ in seen.seatings}
        free = [table for table in seen.tables if table not in taken]
        return str(self.draw.choice(free if free and self.draw.random() < 0.9 else list(seen.tables)))

    def _party(self, seen: Glimpse) -> int | None:
        return int(self.draw.choice(seen.seatings)[0]) if seen.seatings else None

    def _seat(self, seen: Glimpse) -> dict[str, Any]:
        return {"table": self._free_table(seen), "covers": self.draw.randrange(1, 9)}

    def _transfer(self, seen: Glimpse) -> dict[str, Any] | None:
        party = self._party(seen)
        return None if party is None else {"seating": party, "table": self._free_table(seen)}

    def _merge(self, seen: Glimpse) -> dict[str, Any] | None:
        if len(seen.seatings) < 2:
            return None
        one, other = self.draw.sample(list(seen.seatings), 2)
        return {"seating": one[0], "into": other[0]}

    def _close(self, seen: Glimpse) -> dict[str, Any] | None:
        billed = [bill for bill in seen.bills if bill[2] == "open"]
        ready = [bill[1] for bill in billed if bill[3] == bill[4]]
        ready += [seating for seating, _, total in seen.seatings if not total]
        wish = self.draw.random()
        if ready and wish < 0.6:
            return {"seating": self.draw.choice(ready)}
        if billed and wish < 0.85:
            return {"seating": self.draw.choice(billed)[1]}
        return self._seating(seen)

    def _seating(self, seen: Glimpse) -> dict[str, Any] | None:
        party = self._party(seen)
        return None if party is None else {"seating": party}

    _bill = _seating

    # ------------------------------------------------------------------ money

    def _some_bill(self, seen: Glimpse) -> tuple[int, int, str, int, int] | None:
        owing = [bill for bill in seen.bills if bill[3] > bill[4]]
        return self.draw.choice(owing) if owing else None

    def _split(self, seen: Glimpse) -> dict[str, Any] | None:
        bill = self._some_bill(seen)
        return None if bill is None else {"bill": bill[0], "shares": [1] * self.draw.randrange(2, 5)}

    def _pay(self, seen: Glimpse) -> dict[str, Any] | None:
        bill = self._some_bill(seen)
        if bill is None:
            return None
        due = bill[3] - bill[4]
        amount = self.draw.choice((due, due, max(1, due // 2), max(1, due // 3), due + 1))
        return {"bill": bill[0], "amount_minor": amount, "tender": "cash"}

    def _refund(self, seen: Glimpse) -> dict[str, Any] | None:
        left = [payment for payment in seen.payments if payment[1] > 0]
        if not left:
            return None
        payment, most = self.draw.choice(left)
        return {"payment": payment, "amount_minor": self.draw.choice((most, max(1, most // 3), most + 1))}

    # ------------------------------------------------------------------ the kitchen

    def _cook(self, seen: Glimpse) -> dict[str, Any] | None:
        sane = self.draw.random() < 0.8  # now and then a line that is served or cancelled
        going = [line for line in seen.lines if (line[2] < 3) == sane]
        if not going:
            return None
        order, line, state = self.draw.choice(going)
        return {
            "order": order,
            "line": line,
            "state": self.draw.choice((min(state + 1, 3), min(state + 1, 3), 3)),
        }

    def _void(self, seen: Glimpse) -> dict[str, Any] | None:
        if not seen.lines:
            return None
        order, line, _ = self.draw.choice(seen.lines)
        return {"order": order, "line": line}

    def _stock(self, _seen: Glimpse) -> dict[str, Any] | None:
        if not self.counted:
            return None
        return {"item": self.draw.choice(self.counted), "count": self.draw.randrange(0, 12)}

    # ------------------------------------------------------------------ the floor

    def _course(self, seen: Glimpse) -> dict[str, Any] | None:
        if not seen.lines:
            return None
        order, line, _ = self.draw.choice(seen.lines)
        return {"order": order, "line": line, "course": self.draw.choice((2, 2, 3, 1))}

    def _fire(self, seen: Glimpse) -> dict[str, Any] | None:
        if not seen.held:
            return None
        seating, course = self.draw.choice(seen.held)
        return {"seating": seating, "course": course}

    def _shut(self, seen: Glimpse) -> dict[str, Any]:
        return {"table": self._free_table(seen)}

    def _reopen(self, seen: Glimpse) -> dict[str, Any] | None:
        return {"table": self.draw.choice(seen.closed)} if seen.closed else None

    # ------------------------------------------------------------------ bookings

    def _book(self, seen: Glimpse) -> dict[str, Any]:
        """Half-hour slots of one evening, sometimes a minute into the next: most of them meet another."""
        tables = self.draw.sample(list(seen.tables), min(len(seen.tables), self.draw.choice((1, 1, 1, 2))))
        start = self.day_s + SLOT_S * self.draw.randrange(SLOTS)
        end = start + SLOT_S * self.draw.randrange(1, 4) + self.draw.choice((0, 0, 0, 60))
        return {"tables": tables, "start_at": start, "end_at": end}

    def _booking(self, seen: Glimpse) -> dict[str, Any] | None:
        return {"booking": self.draw.choice(seen.bookings)} if seen.bookings else None

    _arrive = _unbook = _missed = _booking


def job(service: Service, author: str, action: Action) -> Change:
    """The action as a job for the writer."""
    a = action.args
    made: dict[str, Callable[[], Change]] = {
        "seat": lambda: service.open_seating(author, a["table"], a["covers"]),
        "transfer": lambda: service.transfer(author, a["seating"], a["table"]),
        "merge": lambda: service.merge(author, a["seating"], a["into"]),
        "close": lambda: service.close(author, a["seating"]),
        "bill": lambda: service.bill(author, a["seating"]),
        "split": lambda: service.split(author, a["bill"], shares=a["shares"]),
        "pay": lambda: service.pay(author, a["bill"], a["amount_minor"], a["tender"]),
        "refund": lambda: service.refund(author, a["payment"], a["amount_minor"], "wrong"),
        "cook": lambda: service.set_line_state(author, a["order"], a["line"], LineState(a["state"])),
        "void": lambda: service.void_line(author, a["order"], a["line"], "wrong"),
        "stock": lambda: service.set_stock(author, a["item"], a["count"]),
        "course": lambda: service.set_course(author, a["order"], a["line"], a["course"]),
        "fire": lambda: service.fire_course(author, a["seating"], a["course"]),
        "shut": lambda: service.close_table(author, a["table"], "rain"),
        "reopen": lambda: service.open_table(author, a["table"]),
        "book": lambda: service.book(author, "a party", 2, a["tables"], a["start_at"], a["end_at"]),
        "arrive": lambda: service.seat_booking(author, a["booking"]),
        "unbook": lambda: service.cancel_booking(author, a["booking"]),
        "missed": lambda: service.no_show(author, a["booking"]),
    }
    return made[action.kind]()


def call(action: Action) -> tuple[str, str, dict[str, Any]]:
    """The action as a call of the HTTP API: method, path, body."""
    a = action.args
    calls: dict[str, Callable[[], tuple[str, str, dict[str, Any]]]] = {
        "seat": lambda: ("POST", "/v1/seatings", {"table": a["table"], "covers": a["covers"]}),
        "transfer": lambda: ("POST", f"/v1/seatings/{a['seating']}/transfer", {"table": a["table"]}),
        "merge": lambda: ("POST", f"/v1/seatings/{a['seating']}/merge", {"into": a["into"]}),
        "close": lambda: ("POST", f"/v1/seatings/{a['seating']}/close", {}),
        "bill": lambda: ("POST", f"/v1/seatings/{a['seating']}/bill", {}),
        "split": lambda: ("POST", f"/v1/bills/{a['bill']}/split", {"shares": a["shares"]}),
        "pay": lambda: (
            "POST",
            f"/v1/bills/{a['bill']}/payments",
            {"amount_minor": a["amount_minor"], "tender": a["tender"]},
        ),
        "refund": lambda: (
            "POST",
            f"/v1/payments/{a['payment']}/refunds",
            {"amount_minor": a["amount_minor"], "reason": "wrong"},
        ),
        "cook": lambda: (
            "POST",
            f"/v1/orders/{a['order']}/lines/{a['line']}/state",
            {"state": LineState(a["state"]).name.lower()},
        ),
        "void": lambda: ("POST", f"/v1/orders/{a['order']}/lines/{a['line']}/void", {"reason": "wrong"}),
        "stock": lambda: ("PUT", f"/v1/items/{a['item']}/stock", {"count": a["count"]}),
        "book": lambda: (
            "POST",
            "/v1/bookings",
            {"name": "a party", "covers": 2, "tables": a["tables"], "start_at": a["start_at"],
             "end_at": a["end_at"]},
        ),
        "arrive": lambda: ("POST", f"/v1/bookings/{a['booking']}/seat", {}),
        "unbook": lambda: ("POST", f"/v1/bookings/{a['booking']}/cancel", {}),
        "missed": lambda: ("POST", f"/v1/bookings/{a['booking']}/no-show", {}),
    }  # fmt: skip
    return calls[action.kind]()
