"""What an op is answered with, and the shared view of where it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.ordering.catalogue import KnownDevice, Snapshot
from server.ordering.pricing import PricedOrder
from server.storage.transaction import Transaction
from server.wire.notices import Notice
from server.wire.ops import Op, Status


@dataclass(frozen=True, slots=True)
class Addressed:
    """A notice for every terminal of a table; sent only after the commit."""

    table: str
    notice: Notice


@dataclass(frozen=True, slots=True)
class OpenSeating:
    """The open seating of a table, with the chain one device has in it; ``fresh``: this op opened it."""

    id: int
    total_minor: int
    head: bytes
    first_op: bytes | None
    count: int
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything an op is judged against, inside one transaction."""

    transaction: Transaction
    site: str
    device: str
    known: KnownDevice
    snapshot: Snapshot
    seating: OpenSeating
    op: Op
    now_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A final answer and what is still to be stored with it.

    ``order`` is a new order to insert; ``order_number`` an older one the answer is about; ``delta_minor``
    what the seating's total changes by; ``event`` kind and body of the event row; ``bill`` the bill whose
    chain this answer ends; ``closes`` ends the seating.
    """

    status: Status
    arg: int = 0
    total_minor: int = 0
    order: PricedOrder | None = None
    order_number: int = 0
    delta_minor: int = 0
    event: tuple[str, Mapping[str, object]] | None = None
    bill: int = 0
    closes: bool = False
    notices: tuple[Addressed, ...] = field(default=())
