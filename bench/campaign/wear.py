"""What an update costs: erases and programmed bytes, years until the flash is worn, seconds on the wire.

The years hold for the sector that is erased most if littlefs and the rings spread erases evenly over their
sectors, and for the control record, whose two sectors take sixteen changes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.boards.flashmap import REGIONS, SECTOR_BYTES
from bench.campaign.world import World

CYCLES = 100_000  # erases a sector of NOR flash is specified for
UPDATES_PER_YEAR = 52
_RECORD_CHANGES_PER_SECTOR = 16
_SERIAL_BITS_PER_BYTE = 10  # start and stop bit
# Bytes that carry one 1 KiB chunk: chunk frame, MQTT, TCP/IP, and its share of the request and PUBACKs.
_OVERHEAD_PER_CHUNK = 15 + 24 + 40 + 30
_OVERHEAD_ONCE = 2 * 1024  # offer, hash list, state reports
LINKS = {"serial_115200": 115_200 / _SERIAL_BITS_PER_BYTE, "mbit_1": 1e6 / 8, "wifi_10_mbit": 10e6 / 8}


@dataclass(frozen=True)
class Wear:
    """Figures of one golden update. `years`: until the first sector passes CYCLES erases."""

    erases: int
    program_bytes: int
    bundle_bytes: int
    wire_bytes: int
    control_changes: int
    vfs_erases: int
    years: float
    updates_per_year: int
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def figures(world: World) -> Wear:
    """Count one undisturbed update."""
    trace = world.goldens["new"].trace
    control, vfs = REGIONS["control"], REGIONS["vfs"]
    changes = sum(control.start <= step.offset < control.start + control.size for step in trace.steps)
    erased = [s.offset for s in trace.steps if s.is_erase and s.offset % SECTOR_BYTES == 0]
    in_vfs = sum(vfs.start <= offset < vfs.start + vfs.size for offset in erased)
    sectors = vfs.size // SECTOR_BYTES
    per_update = max(in_vfs / sectors, changes / (2 * _RECORD_CHANGES_PER_SECTOR))
    size = world.releases["new"].size
    chunks = -(-size // 1024)
    wire = size + chunks * _OVERHEAD_PER_CHUNK + _OVERHEAD_ONCE
    return Wear(
        erases=trace.erases,
        program_bytes=trace.program_bytes,
        bundle_bytes=size,
        wire_bytes=wire,
        control_changes=changes,
        vfs_erases=in_vfs,
        years=round(CYCLES / per_update / UPDATES_PER_YEAR, 1),
        updates_per_year=UPDATES_PER_YEAR,
        seconds={name: round(wire / rate, 2) for name, rate in LINKS.items()},
    )


def in_words(wear: Mapping[str, Any]) -> list[str]:
    """Those figures as sentences."""
    seconds = wear["seconds"]
    return [
        f"one update of {wear['bundle_bytes']} bytes: {wear['erases']} erases, {wear['program_bytes']} bytes "
        f"programmed; {wear['years']:,.0f} years at {wear['updates_per_year']} updates a year and "
        f"{CYCLES:,} cycles, if erases are spread evenly",
        f"on the wire: {wear['wire_bytes']} bytes, {seconds['serial_115200']} s at 115,200 baud, "
        f"{seconds['mbit_1']} s at 1 Mbit/s, {seconds['wifi_10_mbit']} s at 10 Mbit/s of Wi-Fi",
    ]
