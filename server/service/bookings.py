"""Bookings as rows: made and changed where no table is kept twice, then seated, missed or cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.domain import bookings as rules
from server.domain.errors import HouseCode, HouseError
from server.domain.states import BOOKING, BookingState, BookingStep, step
from server.service import seatings
from server.service.change import Result, Work


def _check_free(work: Work, tables: Sequence[str], start_at: int, end_at: int, own: int = 0) -> None:
    """Raises: HouseError(UNKNOWN_TABLE, BOOKING_OVERLAP) unless no booking but ``own`` keeps these tables."""
    for table in tables:
        seatings.check_table(work, table)
    marks = ",".join("?" * len(tables))
    rows = work.all(
        f"SELECT booking, table_id, start_at, end_at FROM booking_table WHERE site = ? AND live = 1 "
        f"AND booking <> ? AND table_id IN ({marks}) AND start_at < ? AND end_at > ? "
        f"ORDER BY start_at, booking, table_id",
        work.site,
        own,
        *tables,
        end_at,
        start_at,
    )
    hold = rules.find_overlap((rules.Reserved(*row) for row in rows), tables, start_at, end_at)
    if hold is not None:
        raise HouseError(
            HouseCode.BOOKING_OVERLAP,
            f"table {hold.table} is kept for booking {hold.booking} from {hold.start_at} to {hold.end_at}",
        )


def _keep(work: Work, booking: int, tables: Sequence[str], start_at: int, end_at: int) -> None:
    work.transaction.executemany(
        "INSERT INTO booking_table (site, booking, table_id, start_at, end_at, live) VALUES (?,?,?,?,?,1)",
        [(work.site, booking, table, start_at, end_at) for table in tables],
    )


def book(work: Work, name: str, covers: int, tables: Sequence[str], start_at: int, end_at: int) -> Result:
    """Keep one table, or several for one party, from ``start_at`` to before ``end_at``."""
    rules.check_request(name, covers, tables, start_at, end_at)
    _check_free(work, tables, start_at, end_at)
    booking = work.lsn
    work.do(
        "INSERT INTO booking (site, booking, name, covers, start_at, end_at, state) VALUES (?,?,?,?,?,?,?)",
        work.site,
        booking,
        name.strip(),
        covers,
        start_at,
        end_at,
        BookingState.BOOKED.value,
    )
    _keep(work, booking, tables, start_at, end_at)
    return _shown(booking, name, covers, tables, start_at, end_at)


def _shown(booking: int, name: str, covers: int, tables: Sequence[str], start_at: int, end_at: int) -> Result:
    return {
        "booking": booking, "name": name.strip(), "covers": covers, "tables": list(tables),
        "start_at": start_at, "end_at": end_at, "state": BookingState.BOOKED.value,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be different about a booking; None leaves it as it is."""

    name: str | None = None
    covers: int | None = None
    tables: Sequence[str] | None = None
    start_at: int | None = None
    end_at: int | None = None


def change(work: Work, booking: int, wish: Wish) -> Result:
    """Give a booking another time, party or other tables; what it keeps itself does not stand against it."""
    row = work.one(
        "SELECT state, name, covers, start_at, end_at FROM booking WHERE site = ? AND booking = ?",
        work.site,
        booking,
    )
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_BOOKING, f"there is no booking {booking}")
    step(BOOKING, BookingState(row[0]), BookingStep.CHANGE, HouseCode.BOOKING_STATE, f"booking {booking}")
    name = row[1] if wish.name is None else wish.name
    covers = row[2] if wish.covers is None else wish.covers
    start_at = row[3] if wish.start_at is None else wish.start_at
    end_at = row[4] if wish.end_at is None else wish.end_at
    tables = _tables_of(work, booking) if wish.tables is None else wish.tables
    rules.check_request(name, covers, tables, start_at, end_at)
    _check_free(work, tables, start_at, end_at, own=booking)
    work.do(
        "UPDATE booking SET name = ?, covers = ?, start_at = ?, end_at = ? WHERE site = ? AND booking = ?",
        name.strip(),
        covers,
        start_at,
        end_at,
        work.site,
        booking,
    )
    work.do("DELETE FROM booking_table WHERE site = ? AND booking = ?", work.site, booking)
    _keep(work, booking, tables, start_at, end_at)
    return _shown(booking, name, covers, tables, start_at, end_at)


def _tables_of(work: Work, booking: int) -> list[str]:
    rows = work.all(
        "SELECT table_id FROM booking_table WHERE site = ? AND booking = ? ORDER BY table_id",
        work.site,
        booking,
    )
    return [row[0] for row in rows]


def _step(work: Work, booking: int, what: BookingStep) -> tuple[BookingState, int, list[str]]:
    row = work.one("SELECT state, covers FROM booking WHERE site = ? AND booking = ?", work.site, booking)
    if row is None:
        raise HouseError(HouseCode.UNKNOWN_BOOKING, f"there is no booking {booking}")
    after = step(BOOKING, BookingState(row[0]), what, HouseCode.BOOKING_STATE, f"booking {booking}")
    work.do("UPDATE booking SET state = ? WHERE site = ? AND booking = ?", after.value, work.site, booking)
    return after, row[1], _tables_of(work, booking)


def seat(work: Work, booking: int, table: str | None) -> Result:
    """The party is here: open its seating at one of its tables (the first that is free)."""
    after, covers, tables = _step(work, booking, BookingStep.SEAT)
    if table is not None and table not in tables:
        raise HouseError(HouseCode.BAD_VALUE, f"table {table} is not one of booking {booking}")
    chosen = table if table is not None else _first_free(work, tables)
    opened = seatings.open_seating(work, chosen, covers)
    work.do(
        "UPDATE booking SET seating = ? WHERE site = ? AND booking = ?",
        opened["seating"],
        work.site,
        booking,
    )
    return {"booking": booking, "state": after.value, **opened}


def _first_free(work: Work, tables: Sequence[str]) -> str:
    for table in tables:
        if table in work.snapshot.closed_tables:
            continue
        taken = work.one(
            "SELECT 1 FROM seating WHERE site = ? AND table_id = ? AND closed_at IS NULL", work.site, table
        )
        if taken is None:
            return table
    raise HouseError(HouseCode.TABLE_TAKEN, f"every table of the booking is taken: {', '.join(tables)}")


def release(work: Work, booking: int, what: BookingStep) -> Result:
    """Cancel a booking or note that nobody came: its tables are free again."""
    after, _, tables = _step(work, booking, what)
    work.do("UPDATE booking_table SET live = 0 WHERE site = ? AND booking = ?", work.site, booking)
    return {"booking": booking, "state": after.value, "tables": tables}
