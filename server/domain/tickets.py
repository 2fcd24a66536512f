"""Kitchen tickets: what of an order is to be made at one station, and what of it still waits for its course.

A line of the first course is to be made at once. A line of a later course is held until that course is fired
for its party; holding is advice to the kitchen, a held line may be begun.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.states import LineState, order_state

FIRST_COURSE = 1


@dataclass(frozen=True, slots=True)
class TicketLine:
    """A live line in the kitchen; ``since`` and ``by``: when it came to its state (unix s) and by whom."""

    line: int
    item: int
    quantity: int
    modifiers: tuple[int, ...]
    state: LineState
    course: int
    fired: bool
    since: int
    by: str

    @property
    def held(self) -> bool:
        """Whether it waits for its course."""
        return self.state is LineState.NEW and self.course > FIRST_COURSE and not self.fired


@dataclass(frozen=True, slots=True)
class Placed:
    """A line with the order it belongs to and the station that makes it."""

    order: int
    seating: int
    table: str
    at: int
    station: str
    what: TicketLine


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one station makes of one order."""

    order: int
    seating: int
    table: str
    at: int
    station: str
    lines: tuple[TicketLine, ...]

    @property
    def state(self) -> LineState:
        """The state of its lines together."""
        return order_state(line.state for line in self.lines)

    @property
    def held(self) -> bool:
        """Whether everything on it waits for a course."""
        return all(line.held for line in self.lines)


def tickets_of(placed: Iterable[Placed]) -> list[Ticket]:
    """One ticket per order and station, oldest order first; each has its lines by course, then as ordered."""
    found: dict[tuple[int, str], list[Placed]] = {}
    for one in placed:
        found.setdefault((one.order, one.station), []).append(one)
    return [
        Ticket(
            order, lines[0].seating, lines[0].table, lines[0].at, station,
            tuple(sorted((one.what for one in lines), key=lambda line: (line.course, line.line))),
        )
        for (order, station), lines in sorted(found.items())
    ]  # fmt: skip
