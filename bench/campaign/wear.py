"""What an update costs: erases and programmed bytes, years until the flash is worn, seconds on the wire.

The years hold for the sector that is erased most if littlefs and the rings spread erases evenly over their
sectors, and for the control record, whose two sectors take sixteen changes each. Bytes on the wire are
counted on a real update over MQTT (bench/campaign/wire.py) plus TCP/IP; the seconds are those bytes on a link
that carries nothing else. Flash times are typical ones of data sheets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.boards.flashmap import REGIONS, SECTOR_BYTES
from bench.campaign.trace import PAGE_BYTES
from bench.campaign.wire_cases import Traffic
from bench.campaign.world import World

CYCLES = 100_000  # erases a sector of NOR flash is specified for
UPDATES_PER_YEAR = 52
ERASE_MS, PROGRAM_MS = 45.0, 0.7  # a sector, a page: typical of serial NOR flash
_RECORD_CHANGES_PER_SECTOR = 16
_SERIAL_BITS_PER_BYTE = 10  # start and stop bit
_TCP_IP_BYTES = 2 * 40  # headers of the segment that carries a packet, and of the one that acknowledges it
LINKS = {
    "115,200 baud": 115_200 / _SERIAL_BITS_PER_BYTE,
    "1 Mbit/s": 1e6 / 8,
    "Wi-Fi, 10 Mbit/s": 10e6 / 8,
}


@dataclass(frozen=True)
class Wear:
    """Figures of one update. `years`: until the first sector passes CYCLES erases; `seconds` by link."""

    erases: int
    program_bytes: int
    flash_ms: float
    bundle_bytes: int
    mqtt_packets: int
    mqtt_bytes: int
    wire_bytes: int
    control_changes: int
    vfs_erases: int
    years: float
    updates_per_year: int
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def figures(world: World, traffic: Traffic) -> Wear:
    """Count one undisturbed update: its flash steps, and its traffic on a real link."""
    trace = world.goldens["new"].trace
    control, vfs = REGIONS["control"], REGIONS["vfs"]
    programs = [step for step in trace.steps if not step.is_erase]
    changes = sum(step.lies_in(control) for step in programs)
    erased = [s for s in trace.steps if s.is_erase and s.offset % SECTOR_BYTES == 0]
    in_vfs = sum(step.lies_in(vfs) for step in erased)
    sectors = vfs.size // SECTOR_BYTES
    per_update = max(in_vfs / sectors, changes / (2 * _RECORD_CHANGES_PER_SECTOR))
    pages = sum(-(-len(step.data) // PAGE_BYTES) for step in programs)
    wire = traffic.mqtt_bytes + traffic.packets * _TCP_IP_BYTES
    return Wear(
        erases=trace.erases,
        program_bytes=trace.program_bytes,
        flash_ms=round(trace.erases * ERASE_MS + pages * PROGRAM_MS),
        bundle_bytes=world.releases["new"].size,
        mqtt_packets=traffic.packets,
        mqtt_bytes=traffic.mqtt_bytes,
        wire_bytes=wire,
        control_changes=changes,
        vfs_erases=in_vfs,
        years=round(CYCLES / per_update / UPDATES_PER_YEAR, 1),
        updates_per_year=UPDATES_PER_YEAR,
        seconds={name: round(wire / rate, 2) for name, rate in LINKS.items()},
    )


def in_words(wear: Wear) -> list[str]:
    """Those figures as a table."""
    rows = [
        ("bundle", f"{wear.bundle_bytes} bytes"),
        ("flash", f"{wear.erases} sector erases, {wear.program_bytes} bytes programmed, "
                  f"about {wear.flash_ms / 1000:.1f} s of a real chip's time"),
        ("wear", f"{wear.years:,.0f} years at {wear.updates_per_year} updates a year and {CYCLES:,} cycles, "
                 f"if erases are spread evenly"),
        ("MQTT", f"{wear.mqtt_packets} packets, {wear.mqtt_bytes} bytes; {wear.wire_bytes} with TCP/IP"),
    ]  # fmt: skip
    rows += [(name, f"{seconds:.2f} s of transfer") for name, seconds in wear.seconds.items()]
    return ["one update, restart and two orders included:"] + [f"  {name:18}{text}" for name, text in rows]
