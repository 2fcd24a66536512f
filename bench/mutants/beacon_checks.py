"""Named checks for planted bugs in the numbering of beacons. Each returns "" or what is wrong.

A terminal takes a beacon for old by its number alone: a site gives each out once, however many servers it
has, and a terminal never goes below the highest it has verified, whatever becomes of its power.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.paths import FIXTURE_KEYS
from bench.sim import firmware, keys
from bench.sim.clock import EPOCH_S
from bench.sim.randomness import Seeded
from server.devices.beacons import Beacons
from server.devices.keyfiles import load_signer
from server.devices.keys import KeyStore
from server.devices.records import IssuedBeacon, MenuReference

SITE = "demo"


class _Clock:
    def unix_time(self) -> int:
        return EPOCH_S


@dataclass(slots=True)
class _Log:
    """What the servers of a site have stored; the first with a number has it."""

    stored: dict[int, IssuedBeacon] = field(default_factory=dict)

    def load(self) -> list[IssuedBeacon]:
        return list(self.stored.values())

    def append(self, beacon: IssuedBeacon) -> list[IssuedBeacon] | None:
        return None if self.stored.setdefault(beacon.counter, beacon) is beacon else self.load()


@contextmanager
def _site() -> Iterator[tuple[KeyStore, _Log]]:
    with tempfile.TemporaryDirectory(prefix="tableside-check-") as folder:
        keys.make_site_keys(Path(folder) / "keys", SITE, EPOCH_S)
        yield KeyStore(Path(folder) / "keys", SITE), _Log()


def _server(site: tuple[KeyStore, _Log]) -> Beacons:
    return Beacons(SITE, *site, _Clock(), Seeded(1, "beacons"))


def _number(frame: bytes) -> int:
    return int(firmware.module("terminal.wire.frames").parse_beacon(frame).counter)


def beacon_numbers_are_used_once() -> str:
    """Two servers of a site that take turns, and one that starts later, never publish the same number."""
    menu = MenuReference(1, bytes(32))
    with _site() as site:
        pair = [_server(site), _server(site)]
        numbers = [_number(server.issue(menu)) for _ in range(3) for server in pair]
        numbers.append(_number(_server(site).issue(menu)))
    return "" if numbers == sorted(set(numbers)) else f"beacons were published as {numbers}"


def _terminal(nor: Any) -> Any:
    regions = firmware.module("terminal.regions")
    counters = firmware.module("terminal.counters").Counters(nor.region(*regions.find(regions.COUNTERS)))
    root = firmware.module("terminal.wire.keys").PublicKey.from_spki(
        load_signer(FIXTURE_KEYS / "root.pem").spki
    )
    return firmware.module("terminal.session").Session(
        SimpleNamespace(site=SITE), root, counters, Seeded(1, "terminal").random, 1
    )


def an_old_beacon_stays_old() -> str:
    """What a terminal has verified a newer beacon than is refused, also after its power failed."""
    menu = MenuReference(1, bytes(32))
    stale = firmware.module("terminal.wire.errors").WireError
    nor_of, flash_bytes = (
        firmware.module("boards.host.nor").Nor,
        firmware.module("terminal.regions").FLASH_BYTES,
    )
    with _site() as site:
        server = _server(site)
        old, new = server.issue(menu), server.issue(menu)
    nor = nor_of(flash_bytes, None)
    terminal = _terminal(nor)
    for frame in (old, new):
        terminal.on_beacon(frame)
        firmware.module("terminal.wire.rsa").run_now(terminal.verify_beacon_steps())
    with suppress(stale):
        _terminal(nor_of(flash_bytes, bytes(nor.data))).on_beacon(old)
        return f"beacon {_number(old)} is looked at after {_number(new)}"
    return ""
