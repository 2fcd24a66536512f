"""The events a history is made of. Times are seconds on one clock of the observer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

Line = tuple[int, int, tuple[int, ...]]  # item, quantity, modifiers
NEW, PREPARING, READY, SERVED, CANCELLED = range(5)  # states of a line, as they are stored


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A line as it was committed; the tax is contained in the total; ``line`` counts within its order."""

    item: int
    quantity: int
    modifiers: tuple[int, ...]
    unit_minor: int
    total_minor: int
    tax_minor: int
    line: int = 0
    state: int = NEW
    course: int = 1

    @property
    def wanted(self) -> Line:
        """What the guest asked for."""
        return self.item, self.quantity, self.modifiers


@dataclass(frozen=True, slots=True)
class Submitted:
    """A guest asked for something; ``told`` is False where the power failed before "queued" was shown."""

    at_s: float
    device: str
    op_id: bytes
    table: str
    menu_version: int
    total_minor: int
    lines: tuple[Line, ...]
    told: bool = True
    kind: str = "order"  # or "change", "cancel" (both of ``target``), "call", "bill", "pay"
    target: bytes = b""  # of "pay": the bill request that is sealed
    bill: int = 0  # of "pay"


@dataclass(frozen=True, slots=True)
class Reply:
    """The fields of a final answer."""

    status: int
    arg: int
    order_number: int
    total_minor: int
    lsn: int
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class Replied:
    """An answer was seen: on the wire, or (``by_device``) accepted by the terminal itself."""

    at_s: float
    device: str
    op_id: bytes
    reply: Reply
    by_device: bool = True


@dataclass(frozen=True, slots=True)
class Acted:
    """Staff asked for a change of the house and learned what came of it.

    Done: ``lsn`` and ``result``. Refused: ``code``, and ``after_lsn``, the LSN at which it was judged, where
    the observer knows it.
    """

    at_s: float
    done_s: float
    kind: str
    args: Mapping[str, Any]
    lsn: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    after_lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Restocked:
    """Stock of an item changed by ``delta`` right after the change with ``lsn``."""

    lsn: int
    item: int
    delta: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer and its seating."""

    device: str
    op_id: bytes
    op_hash: bytes
    reply: Reply
    seating: int = 0


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An order as it is stored now, with every line it ever had."""

    number: int
    device: str
    op_id: bytes
    seating: int
    total_minor: int
    lines: tuple[StoredLine, ...]


@dataclass(frozen=True, slots=True)
class StoredSeating:
    """A seating as it is stored now."""

    table: str
    total_minor: int
    chain: bytes
    open: bool = True


@dataclass(frozen=True, slots=True)
class StoredBill:
    """A bill as it is stored now."""

    seating: int
    state: str
    total_minor: int
    tax_minor: int
    paid_minor: int


@dataclass(frozen=True, slots=True)
class StoredPayment:
    """A payment as it is stored now."""

    bill: int
    amount_minor: int
    refunded_minor: int


@dataclass(frozen=True, slots=True)
class StoredBooking:
    """A booking as it is stored now; ``live`` are the tables it still keeps."""

    state: str
    start_at: int
    end_at: int
    live: frozenset[str]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    code: str
    text: str


@dataclass(slots=True)
class History:
    """All about one run that can be judged. What is stored is keyed by its number."""

    submitted: Sequence[Submitted] = ()
    replied: Sequence[Replied] = ()
    acted: Sequence[Acted] = ()
    answers: Sequence[Answer] = ()
    orders: Sequence[StoredOrder] = ()
    restocked: Sequence[Restocked] = ()
    staff_lsns: Sequence[int] = ()  # of events that are no device's
    stock: Mapping[int, int] = field(default_factory=dict)
    seatings: Mapping[int, StoredSeating] = field(default_factory=dict)
    bills: Mapping[int, StoredBill] = field(default_factory=dict)
    payments: Mapping[int, StoredPayment] = field(default_factory=dict)
    bookings: Mapping[int, StoredBooking] = field(default_factory=dict)
    fired: Set[tuple[int, int]] = frozenset()  # order, course
    shut: Set[str] = frozenset()  # tables out of service
    menus: Mapping[int, MenuPrices] = field(default_factory=dict)
    honest: bool = True  # guests order only what is on a published menu, at their own table
    finished: bool = True  # every terminal had time to empty its outbox


@dataclass(frozen=True, slots=True)
class MenuPrices:
    """Prices of one menu version: item -> unit price, (item, modifier) is item price plus these deltas."""

    items: Mapping[int, int]
    modifiers: Mapping[int, int]
    tax_basis_points: Mapping[int, int] = field(default_factory=dict)  # by item
    rounds_per_bill: bool = False

    def total_minor(self, lines: Sequence[Line]) -> int | None:
        """What the lines cost, None where something is not on this menu."""
        total = 0
        for item, quantity, chosen in lines:
            if item not in self.items or any(modifier not in self.modifiers for modifier in chosen):
                return None
            total += quantity * (self.items[item] + sum(self.modifiers[modifier] for modifier in chosen))
        return total
