"""What the campaign plays with: a terminal in service, and its updates as they run undisturbed.

The terminal took six updates before (so both slots and both sectors of the control record are used), has a
menu and orders under way. All of it is made by the terminal itself, booted on an empty flash that only got
its identity and menu file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cbor2
from littlefs import LittleFS

from bench import provision
from bench.boards.flashmap import FLASH_BYTES, REGIONS, SECTOR_BYTES
from bench.campaign import bundles, rotations
from bench.campaign import signer as keys
from bench.campaign.bundles import Release
from bench.campaign.machine import RESETS, Life, Machine
from bench.campaign.record import append, newest
from bench.campaign.trace import PAGE_BYTES, FlashState, Step, Trace
from bench.campaign.updates import UPDATES, Update
from bench.errors import BenchError
from server.releases.bundle import Bundle, chunk_hashes
from server.wire.menus import Category, Item, Menu, Tax

SITE = "demo"
SEED = 1  # of the assets in the bundles; a line means the same in every campaign
HARDWARE = "process"
_GUESTS = 3
_RSA_BYTES = 384
_RSA_EXPONENT = 65537
_MAX_LIVES = 8
_MENU = Menu(
    1,
    "EUR",
    2,
    0,
    (Tax(1, "food", 700),),
    (Category(1, "Coffee"),),
    (),
    (Item(1, 1, "Espresso", 260, 1), Item(2, 1, "Flat white", 390, 1)),
)


@dataclass(frozen=True)
class World:
    """Everything a worker needs to play any line; immutable, the same in every worker."""

    binary: Path
    served: bytes
    spans: Mapping[str, Sequence[Any]]
    releases: Mapping[str, Release]
    base: bytes
    powers: Sequence[int] = ()
    goldens: Mapping[str, Golden] = field(default_factory=dict)
    hostile: frozenset[str] = frozenset()
    rotations: Mapping[str, Sequence[int]] = field(default_factory=dict)  # forged ones: place and length
    identity: bytes = b""  # what provisioning writes
    past: Mapping[str, int] = field(default_factory=dict)  # orders of earlier days, all answered: id to CRC
    flashed: Mapping[str, Sequence[Step]] = field(default_factory=dict)  # a release of another image runs
    swap: str = ""  # a planted bug: a frozen module that stands for another one

    @property
    def who(self) -> str:
        """Fingerprint of the identity, as the undisturbed terminal tells it."""
        started = self.goldens["new"].lives[0].first("started")
        assert started is not None
        return str(started["who"])

    def machine(self, parent: Path | None = None) -> Machine:
        """A process board for this world."""
        return Machine(self.binary, self.served, parent, self.swap)

    def script(self, offer: str | None, **more: Any) -> dict[str, Any]:
        """The boot option for a life with this release on offer."""
        names = {"other", *([offer] if offer else [])}
        return {
            "bundles": {n: self.spans[n] for n in sorted(names)},
            "offer": offer,
            "seed": 7,
            **self._shortcut(),
            **more,
        }

    def _shortcut(self) -> dict[str, Any]:
        return {"powers": list(self.powers)} if self.powers else {}


@dataclass(frozen=True)
class Golden:
    """One undisturbed update: its lives, and their steps in one row; `start`: the steps from the terminal in
    service to where it begins.
    """

    update: Update
    lives: tuple[Life, ...]
    trace: Trace
    start: tuple[Step, ...] = ()

    def told(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Every event with the number of steps that had happened before it."""
        found: list[tuple[int, Mapping[str, Any]]] = []
        start = 0
        for life in self.lives:
            found += [(start + int(event["at"]), event) for event in life.events]
            start += len(life.trace.steps)
        return found

    @property
    def messages(self) -> int:
        """Messages over the link in the first life: from the offer to the restart."""
        return max(int(n) for n in self.lives[0].all("message"))


def build(
    binary: Path,
    seed: int = SEED,
    hardware: str = HARDWARE,
    machine_type: type[Machine] = Machine,
    updates: Sequence[str] = tuple(UPDATES),
) -> World:
    """Make the releases and the terminal, run the updates with these names. Raises: BenchError."""
    made = bundles.installable(seed, hardware)
    foreign = bundles.foreign(seed, hardware)
    hostile = bundles.hostile(made, hardware)
    served = bytearray()
    spans: dict[str, Sequence[Any]] = {}
    for name, bundle in (made | hostile).items():
        m = bundle.manifest
        hashes = b"".join(chunk_hashes(bundle.data, m.chunk_size))
        places = [_put(served, part) for part in (bundle.offer.encode(), hashes, bundle.data)]
        spans[name] = [*places, m.chunk_size, m.version]
    known = {name: bundles.described(name, bundle) for name, bundle in (made | foreign).items()}
    forged = {name: _put(served, frame) for name, frame in rotations.forged().items()}
    table = _powers([made[bundles.NEW], made[bundles.BAD], *made.values(), *hostile.values()])
    powers = _put(served, b"".join(key + value for key, value in table.items()))[0], len(table)
    served += b"\xff" * (-len(served) % SECTOR_BYTES)
    with machine_type(binary, bytes(served)) as machine:
        names = frozenset(hostile)
        world = World(binary, bytes(served), spans, known, b"", powers, hostile=names, rotations=forged)
        world = replace(world, identity=_identity())
        base, past = _in_service(machine, world)
        flashed = {name: _difference(base, _flashed(base, bundle)) for name, bundle in foreign.items()}
        world = replace(world, base=base, past=past, flashed=flashed)
        return replace(world, goldens=_goldens(machine, world, updates))


def on(world: World, binary: Path, swap: str = "") -> World:
    """The same terminal with another image in it. Raises: BenchError(NO_GOLDEN_RUN)."""
    place = replace(world, binary=binary, swap=swap, goldens={})
    with place.machine() as machine:
        return replace(place, goldens=_goldens(machine, place, tuple(world.goldens)))


def _put(served: bytearray, part: bytes) -> list[int]:
    served += b"\xff" * (-len(served) % 4)
    at = FLASH_BYTES + len(served)
    served += part
    return [at, len(part)]


def _powers(offered: Sequence[Bundle]) -> dict[bytes, bytes]:
    """Every signature of these offers raised to the public exponent (campaign.py, `_know_powers`)."""
    found = {}
    for bundle in offered:
        for frame in (bundle.offer.manifest_frame, bundle.offer.certificate):
            base = int.from_bytes(cbor2.loads(frame).value[3], "big")
            for signer in ("root", "release", "release-2"):
                n = keys.fixture(signer).modulus
                key = sha256(n.to_bytes(_RSA_BYTES, "big") + base.to_bytes(_RSA_BYTES, "big")).digest()
                found[key] = pow(base, _RSA_EXPONENT, n).to_bytes(_RSA_BYTES, "big")
    return found


# ---------------------------------------------------------------- the terminal


def _identity() -> bytes:
    who = provision.identity(1, SITE)
    return provision.copies(provision.record(who, provision.Endpoint("127.0.0.1", 1), provision.root_spki()))


def _in_service(machine: Machine, world: World) -> tuple[bytes, dict[str, int]]:
    """A terminal that runs `old` from its second slot, with a menu and orders that wait for the server ->
    its flash, and the orders that were answered long ago."""
    image = bytearray(b"\xff" * FLASH_BYTES)
    at = REGIONS["identity"].start
    image[at : at + len(world.identity)] = world.identity
    machine.load(image)
    _expect(machine.live(world.script(None)), 0)  # makes the file system
    image = bytearray(machine.image())
    _install_menu(image)
    machine.load(image)
    for name in bundles.SERVED_BEFORE:
        _follow(machine, world.script(name))
        machine.unplug()
    busy = machine.live(world.script(None, guests=_GUESTS, busy=True, unanswered=True))
    _expect(busy, 0)
    machine.unplug()
    return machine.image(), {event["past"]: event["crc"] for event in busy.events if "past" in event}


def _install_menu(image: bytearray) -> None:
    frame = _MENU.seal(keys.fixture("server-sign"), SITE)
    with _mounted(image) as volume, volume.open("/menu.bin", "wb") as file:
        file.write(frame + sha256(frame).digest())


@contextmanager
def _mounted(image: bytearray) -> Iterator[LittleFS]:
    """The file system of a flash image; what is written to it is there afterwards."""
    region = REGIONS["vfs"]
    span = slice(region.start, region.start + region.size)
    volume = LittleFS(
        block_size=SECTOR_BYTES,
        block_count=region.size // SECTOR_BYTES,
        read_size=32,
        prog_size=32,
        lookahead_size=32,
        cache_size=128,
        mount=False,
    )
    volume.context.buffer = bytearray(image[span])
    volume.mount()
    yield volume
    volume.unmount()
    image[span] = volume.context.buffer


def _flashed(base: bytes, bundle: Bundle) -> bytes:
    """The terminal in service with another release where the running one was: its image was changed."""
    image = bytearray(base)
    now = newest(image)
    assert now is not None
    slot = f"/slot/{'ab'[now.slot]}"
    files = {f"app/{path}": body for path, body in bundle.files.items()}
    with _mounted(image) as volume:
        for folder, _, names in list(volume.walk(slot)):
            for name in names:
                volume.remove(f"{folder}/{name}")
        for path, body in {**files, "manifest": bundle.offer.manifest_frame}.items():
            volume.makedirs(f"{slot}/{path}".rpartition("/")[0], exist_ok=True)
            with volume.open(f"{slot}/{path}", "wb") as file:
                file.write(body)
    append(image, bundle.manifest.version, bundle.hash)
    return bytes(image)


def _difference(before: bytes, after: bytes) -> tuple[Step, ...]:
    """The pages of a flash image that another has differently, as steps."""
    places = range(0, FLASH_BYTES, PAGE_BYTES)
    pages = ((at, after[at : at + PAGE_BYTES]) for at in places)
    return tuple(Step(at, page) for at, page in pages if before[at : at + PAGE_BYTES] != page)


def _goldens(machine: Machine, world: World, names: Sequence[str]) -> dict[str, Golden]:
    """Each update by itself; one that goes on from another has that one before it in the list."""
    found: dict[str, Golden] = {}
    base = FlashState(world.base)
    for name in names:
        update = UPDATES[name]
        before = found.get(update.after)
        start = tuple(world.flashed.get(update.flashed, ()))
        if before is not None:
            start = (*before.start, *before.trace.steps)
        state = FlashState.copy_of(base)
        state.apply(start)
        machine.load_state(state)
        lives = _follow(machine, world.script(update.offer, orders=[4, 13], answers=[8], count=True))
        found[name] = Golden(update, tuple(lives), Trace.joined([life.trace for life in lives]), start)
    return found


def _follow(machine: Machine, script: Mapping[str, Any]) -> list[Life]:
    """Start and restart until the terminal is content."""
    lives = [machine.live(script)]
    while lives[-1].exit_code in RESETS and len(lives) < _MAX_LIVES:
        lives.append(machine.live({**script, "seed": script["seed"] + len(lives)}))
    _expect(lives[-1], 0)
    return lives


def _expect(life: Life, code: int) -> None:
    if life.exit_code != code or life.first("ended") is None:
        raise BenchError(
            "NO_GOLDEN_RUN",
            f"The undisturbed terminal ended with {life.exit_code}; its console:\n{life.console[-2000:]}",
        )
