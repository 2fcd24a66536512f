"""Bookings: tables kept for a time [start, end) in unix seconds, never twice at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from server.domain.errors import HouseCode, HouseError

LONGEST_S = 24 * 3600
TABLES_MAX = 8
NAME_MAX = 80
COVERS_MAX = 999


@dataclass(frozen=True, slots=True)
class Reserved:
    """A live booking's hold on one table."""

    booking: int
    table: str
    start_at: int
    end_at: int


def check_request(name: str, covers: int, tables: Collection[str], start_at: int, end_at: int) -> None:
    """Judge what is asked for, before looking at other bookings. Raises: HouseError(BAD_VALUE)."""
    if not 1 <= len(name.strip()) <= NAME_MAX:
        raise HouseError(HouseCode.BAD_VALUE, f"a booking needs a name of 1 to {NAME_MAX} characters")
    if not 1 <= covers <= COVERS_MAX:
        raise HouseError(HouseCode.BAD_VALUE, f"a booking is for 1 to {COVERS_MAX} guests, not {covers}")
    if not 1 <= len(tables) <= TABLES_MAX or len(set(tables)) != len(tables):
        raise HouseError(HouseCode.BAD_VALUE, f"a booking takes 1 to {TABLES_MAX} different tables")
    if not 0 <= start_at < end_at or end_at - start_at > LONGEST_S:
        raise HouseError(HouseCode.BAD_VALUE, "a booking ends after its start, at most 24 hours later")


def overlaps(start_at: int, end_at: int, other_start: int, other_end: int) -> bool:
    """Whether two times [start, end) share a moment; one may begin when the other ends."""
    return start_at < other_end and other_start < end_at


def find_overlap(
    reserved: Iterable[Reserved], tables: Collection[str], start_at: int, end_at: int
) -> Reserved | None:
    """The first hold that stands against a booking of any of these tables, or None."""
    for hold in reserved:
        if hold.table in tables and overlaps(start_at, end_at, hold.start_at, hold.end_at):
            return hold
    return None
