"""The events a history is made of. Times are seconds on one clock of the observer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Line = tuple[int, int, tuple[int, ...]]  # item, quantity, modifiers


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A line as it was committed; the tax is contained in the total."""

    item: int
    quantity: int
    modifiers: tuple[int, ...]
    unit_minor: int
    total_minor: int
    tax_minor: int

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
    kind: str = "order"  # or "change", "cancel" (both of ``target``), "call"
    target: bytes = b""


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
class Restocked:
    """Stock of an item changed by ``delta`` right after the answer with ``lsn``."""

    lsn: int
    item: int
    delta: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer and the table of its seating."""

    device: str
    op_id: bytes
    op_hash: bytes
    reply: Reply
    table: str = ""


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An order as it is stored now, with the lines that were not cancelled."""

    number: int
    device: str
    op_id: bytes
    table: str
    total_minor: int
    lines: tuple[StoredLine, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    code: str
    text: str


@dataclass(slots=True)
class History:
    """All about one run that can be judged. ``seatings``: table -> (bill in minor units, chain head)."""

    submitted: Sequence[Submitted] = ()
    replied: Sequence[Replied] = ()
    answers: Sequence[Answer] = ()
    orders: Sequence[StoredOrder] = ()
    restocked: Sequence[Restocked] = ()
    stock: Mapping[int, int] = field(default_factory=dict)
    seatings: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
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
