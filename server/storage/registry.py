"""Devices, sessions and beacons as rows: what handshakes read and what they store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.devices.beacons import BEACON_MAX_AGE_S
from server.devices.handshake import HandshakeResult
from server.devices.records import DeviceRecord, DeviceState, IssuedBeacon, ResumeKey, SessionRow
from server.storage.transaction import Transaction
from server.wire.frames import Presence
from server.wire.requests import Telemetry
from server.wire.updates import OtaState


class StaleHello(Exception):
    """Between judging a Hello and storing its session the device changed: suspended, or a newer Hello was
    faster.
    """

    code = "stale_handshake"


def load_device(connection: Transaction, site: str, device: str) -> DeviceRecord | None:
    """The device as a handshake needs it, or None when it is not registered."""
    row = connection.execute(
        "SELECT d.table_id, d.state, d.spki, d.handshake, d.hello_hash, d.accept, "
        "(SELECT COUNT(*) FROM answer a WHERE a.site = d.site AND a.device = d.device), "
        "s.sid, s.k_resume, s.rsa_at FROM device d "
        "LEFT JOIN session s ON s.site = d.site AND s.device = d.device WHERE d.site = ? AND d.device = ?",
        (site, device),
    ).fetchone()
    if row is None:
        return None
    table, state, spki, handshake, hello_hash, accept, committed, sid, k_resume, rsa_at = row
    resume = None if sid is None else ResumeKey(sid, k_resume, rsa_at)
    return DeviceRecord(
        site, device, table, DeviceState(state), spki, handshake, hello_hash, accept, committed, resume
    )


_SESSION_COLUMNS = (
    "site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, expires_at, hello_hash, accept, handshake, "
    "rsa_at"
)


def load_sessions(connection: Transaction, site: str) -> list[SessionRow]:
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

    def __call__(self, connection: Transaction) -> None:
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
            f"INSERT INTO session ({_SESSION_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (row.site, row.device, row.sid, row.k_d2s, row.k_s2d, row.k_resume, row.th8, row.created_at,
             row.expires_at, row.hello_hash, row.accept, row.handshake, row.rsa_at),
        )  # fmt: skip


def load_beacons(connection: Transaction, site: str) -> list[IssuedBeacon]:
    """Beacons a Hello may still name, and always the newest."""
    rows = connection.execute(
        "SELECT epoch, counter, time, frame, decrypt_kid FROM beacon WHERE site = ?", (site,)
    )
    return [IssuedBeacon(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class StoreBeacon:
    """Writer job: remember a beacon before it is published, forget those nobody may name any more.

    Gives None, or the stored beacons where another server took this counter.
    """

    site: str
    beacon: IssuedBeacon

    def __call__(self, connection: Transaction) -> list[IssuedBeacon] | None:
        beacon = self.beacon
        connection.execute(
            "DELETE FROM beacon WHERE site = ? AND time < ?", (self.site, beacon.time - BEACON_MAX_AGE_S)
        )
        stored = connection.execute(
            "INSERT INTO beacon (site, epoch, counter, time, frame, decrypt_kid) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT DO NOTHING",
            (self.site, beacon.epoch, beacon.counter, beacon.time, beacon.frame, beacon.decrypt_kid),
        )
        return None if stored.rowcount == 1 else load_beacons(connection, self.site)


@dataclass(frozen=True, slots=True)
class StoreObservations:
    """Writer job: add refusals to their counters and keep what terminals last said about themselves."""

    site: str
    refusals: Mapping[tuple[str, str], int]
    presences: Mapping[str, Presence]
    updates: Mapping[tuple[str, str], OtaState]  # by device and layer
    telemetry: Mapping[str, Telemetry]
    now_s: int

    def __call__(self, connection: Transaction) -> None:
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
            'INSERT INTO update_state (site, device, layer, running, slot, state, "offset", reason, seen_at) '
            "VALUES (?,?,?,?,?,?,?,?,?) "
            "ON CONFLICT (site, device, layer) DO UPDATE SET running = excluded.running, "
            'slot = excluded.slot, state = excluded.state, "offset" = excluded."offset", reason = '
            "excluded.reason, "
            "seen_at = excluded.seen_at",
            [
                (self.site, device, layer, said.running, said.slot, said.state, said.offset, said.reason,
                 self.now_s)
                for (device, layer), said in self.updates.items()
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO telemetry (site, device, uptime_s, heap_free_bytes, reconnects, resent, rssi, "
            "seen_at) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (site, device) DO UPDATE SET "
            "uptime_s = excluded.uptime_s, heap_free_bytes = excluded.heap_free_bytes, "
            "reconnects = excluded.reconnects, resent = excluded.resent, rssi = excluded.rssi, "
            "seen_at = excluded.seen_at",
            [
                (self.site, device, said.uptime_s, said.heap_free_bytes, said.reconnects, said.resent,
                 said.rssi, self.now_s)
                for device, said in self.telemetry.items()
            ],
        )  # fmt: skip


def seating_of(transaction: Transaction, site: str, table: str) -> tuple[int, int] | None:
    """Id and total (minor units) of the open seating at a table, or None."""
    row = transaction.execute(
        "SELECT id, total_minor FROM seating WHERE site = ? AND table_id = ? AND closed_at IS NULL",
        (site, table),
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]))
