"""Devices, sessions and beacons as rows: what handshakes read and what they store."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from server.devices.beacons import BEACON_MAX_AGE_S
from server.devices.handshake import HandshakeResult
from server.devices.records import DeviceRecord, DeviceState, IssuedBeacon, SessionRow
from server.wire.frames import Presence
from server.wire.updates import OtaState


class StaleHello(Exception):
    """Between judging a Hello and storing its session the device changed: suspended, or a newer Hello was
    faster.
    """

    code = "stale_handshake"


def load_device(connection: sqlite3.Connection, site: str, device: str) -> DeviceRecord | None:
    """The device as a handshake needs it, or None when it is not registered."""
    row = connection.execute(
        "SELECT table_id, state, spki, handshake, hello_hash, accept, "
        "(SELECT COUNT(*) FROM answer a WHERE a.site = d.site AND a.device = d.device) "
        "FROM device d WHERE site = ? AND device = ?",
        (site, device),
    ).fetchone()
    if row is None:
        return None
    table, state, spki, handshake, hello_hash, accept, committed = row
    return DeviceRecord(
        site, device, table, DeviceState(state), spki, handshake, hello_hash, accept, committed
    )


_SESSION_COLUMNS = (
    "site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, expires_at, hello_hash, accept, handshake"
)


def load_sessions(connection: sqlite3.Connection, site: str) -> list[SessionRow]:
    """Every stored session of a site."""
    rows = connection.execute(f"SELECT {_SESSION_COLUMNS} FROM session WHERE site = ?", (site,))
    return [SessionRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class StoreSession:
    """Writer job: the handshake counter, the session and the Accept in one transaction; the older session
    goes.
    """

    result: HandshakeResult
    row: SessionRow

    def __call__(self, connection: sqlite3.Connection) -> None:
        """Raises: StaleHello; nothing is stored then."""
        row, result = self.row, self.result
        changed = connection.execute(
            "UPDATE device SET handshake = ?, hello_hash = ?, accept = ? "
            "WHERE site = ? AND device = ? AND state = 'active' AND handshake < ?",
            (result.handshake, result.hello_hash, result.accept, row.site, row.device, result.handshake),
        )
        if changed.rowcount != 1:
            raise StaleHello(row.device)
        connection.execute("DELETE FROM session WHERE site = ? AND device = ?", (row.site, row.device))
        connection.execute(
            f"INSERT INTO session ({_SESSION_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (row.site, row.device, row.sid, row.k_d2s, row.k_s2d, row.k_resume, row.th8, row.created_at,
             row.expires_at, row.hello_hash, row.accept, row.handshake),
        )  # fmt: skip


def load_beacons(connection: sqlite3.Connection, site: str) -> list[IssuedBeacon]:
    """Beacons a Hello may still name, and always the newest."""
    rows = connection.execute(
        "SELECT epoch, counter, time, frame, decrypt_kid FROM beacon WHERE site = ?", (site,)
    )
    return [IssuedBeacon(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class StoreBeacon:
    """Writer job: remember a beacon before it is published, forget those nobody may name any more."""

    site: str
    beacon: IssuedBeacon

    def __call__(self, connection: sqlite3.Connection) -> None:
        beacon = self.beacon
        connection.execute(
            "DELETE FROM beacon WHERE site = ? AND time < ?", (self.site, beacon.time - BEACON_MAX_AGE_S)
        )
        connection.execute(
            "INSERT INTO beacon (site, epoch, counter, time, frame, decrypt_kid) VALUES (?,?,?,?,?,?)",
            (self.site, beacon.epoch, beacon.counter, beacon.time, beacon.frame, beacon.decrypt_kid),
        )


@dataclass(frozen=True, slots=True)
class StoreObservations:
    """Writer job: add refusals to their counters and keep what terminals last said about themselves."""

    site: str
    refusals: Mapping[tuple[str, str], int]
    presences: Mapping[str, Presence]
    updates: Mapping[str, OtaState]
    now_s: int

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO refusal (site, device, code, count) VALUES (?,?,?,?) "
            "ON CONFLICT (site, device, code) DO UPDATE SET count = refusal.count + excluded.count",
            [(self.site, device, code, count) for (device, code), count in self.refusals.items()],
        )
        connection.executemany(
            "INSERT INTO presence (site, device, online, running, menu_version, pending, seen_at) VALUES "
            "(?,?,?,?,?,?,?) "
            "ON CONFLICT (site, device) DO UPDATE SET online = excluded.online, running = excluded.running, "
            "menu_version = excluded.menu_version, pending = excluded.pending, seen_at = excluded.seen_at",
            [
                (
                    self.site,
                    device,
                    int(seen.online),
                    seen.running,
                    seen.menu_version,
                    seen.pending,
                    self.now_s,
                )
                for device, seen in self.presences.items()
            ],
        )
        connection.executemany(
            'INSERT INTO update_state (site, device, running, slot, state, "offset", reason, seen_at) '
            "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (site, device) DO UPDATE SET running = excluded.running, "
            'slot = excluded.slot, state = excluded.state, "offset" = excluded."offset", reason = '
            "excluded.reason, "
            "seen_at = excluded.seen_at",
            [
                (self.site, device, said.running, said.slot, said.state, said.offset, said.reason, self.now_s)
                for device, said in self.updates.items()
            ],
        )
