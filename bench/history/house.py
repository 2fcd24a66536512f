"""The house as the plain model sees it: parties, orders, bills and bookings. Integers and dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from bench.history.events import CANCELLED, NEW

OPEN, SEALED, SETTLED = "open", "sealed", "settled"


@dataclass(slots=True)
class Portion:
    """A line of an order."""

    item: int
    quantity: int
    amount_minor: int
    state: int = NEW
    course: int = 1


@dataclass(slots=True)
class Order:
    """An order with every line it ever had."""

    number: int
    seating: int
    lines: dict[int, Portion] = field(default_factory=dict)

    @property
    def live(self) -> list[Portion]:
        """The lines that count."""
        return [line for line in self.lines.values() if line.state != CANCELLED]

    @property
    def total_minor(self) -> int:
        """What it costs now."""
        return sum(line.amount_minor for line in self.live)

    def pieces(self) -> Counter[int]:
        """What it takes from stock, by item."""
        pieces: Counter[int] = Counter()
        for line in self.live:
            pieces[line.item] += line.quantity
        return pieces


@dataclass(slots=True)
class Party:
    """A seating."""

    number: int
    table: str
    total_minor: int = 0
    open: bool = True
    orders: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Bill:
    """A bill; ``device`` and ``request`` say who may seal it, and after which of its requests."""

    number: int
    seating: int
    total_minor: int = 0
    tax_minor: int = 0
    paid_minor: int = 0
    state: str = OPEN
    device: str = ""
    request: bytes = b""


@dataclass(slots=True)
class Payment:
    """Money taken, and how much of it went back."""

    bill: int
    amount_minor: int
    refunded_minor: int = 0


@dataclass(slots=True)
class Booking:
    """Tables kept from ``start_at`` to before ``end_at``."""

    tables: tuple[str, ...]
    start_at: int
    end_at: int
    state: str = "booked"
    live: bool = True
    seating: int = 0


class House:
    """Everything that counts in one site, and the few ways its parts hang together."""

    def __init__(self) -> None:
        self.parties: dict[int, Party] = {}
        self.at: dict[str, Party] = {}  # table -> the party that sits there
        self.orders: dict[int, Order] = {}
        self.by_op: dict[tuple[str, bytes], Order] = {}
        self.bills: dict[int, Bill] = {}
        self.bill_of: dict[int, Bill] = {}  # by seating
        self.payments: dict[int, Payment] = {}
        self.bookings: dict[int, Booking] = {}
        self.fired: set[tuple[int, int]] = set()  # order, course
        self.shut: set[str] = set()  # tables out of service
        self.level: dict[int, int] = defaultdict(int)
        self.counted: set[int] = set()

    def sit(self, number: int, table: str) -> Party:
        """A party sits down."""
        party = self.parties[number] = self.at[table] = Party(number, table)
        return party

    def leave(self, party: Party) -> None:
        """A party is gone: its table is free, and so are the tables that were kept for it."""
        party.open = False
        if self.at.get(party.table) is party:
            del self.at[party.table]
        for booking in self.bookings.values():
            if booking.seating == party.number:
                booking.live = False

    def draw_up(self, party: Party, number: int, tax_minor: int) -> Bill:
        """The party's bill, of what it owes now."""
        bill = self.bill_of.get(party.number)
        if bill is None:
            bill = self.bills[number] = self.bill_of[party.number] = Bill(number, party.number)
        bill.total_minor, bill.tax_minor = party.total_minor, tax_minor
        return bill

    def paid(self, seating: int) -> int:
        """What was paid of a seating's bill."""
        bill = self.bill_of.get(seating)
        return bill.paid_minor if bill is not None else 0

    def live_lines(self, party: Party) -> list[Portion]:
        """Every line on the party's account."""
        return [line for number in party.orders for line in self.orders[number].live]

    def waiting(self, seating: int, course: int) -> list[int]:
        """The party's orders of which something waits for this course to be fired."""
        if course == 1:
            return []
        return [
            number
            for number in self.parties[seating].orders
            if (number, course) not in self.fired
            and any(line.course == course and line.state == NEW for line in self.orders[number].live)
        ]

    def held(self, tables: tuple[str, ...], start_at: int, end_at: int) -> int:
        """The booking that keeps one of these tables for some of this time, 0 for none."""
        for number, booking in self.bookings.items():
            if not booking.live or not set(tables) & set(booking.tables):
                continue
            if max(start_at, booking.start_at) < min(end_at, booking.end_at):
                return number
        return 0
