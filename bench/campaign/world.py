"""What the campaign plays with: signed releases, and a terminal in service that is about to be updated.

The terminal took six updates before (so both slots and both sectors of the control record are used), has a
menu and orders under way. All of it is made by the terminal itself, booted on an empty flash that only got
its identity and menu file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import cbor2
from littlefs import LittleFS

from bench import provision, releases
from bench.boards.flashmap import FLASH_BYTES, REGIONS, SECTOR_BYTES
from bench.campaign import rotations
from bench.campaign import signer as keys
from bench.campaign.machine import RESETS, Life, Machine
from bench.campaign.trace import Trace
from bench.errors import BenchError
from server.releases.bundle import Bundle, Target, build_bundle, certify, chunk_hashes
from server.wire.menus import Category, Item, Menu, Tax
from server.wire.rsa import Signer
from server.wire.updates import BundleFile

SITE = "demo"
SEED = 1  # of the assets in the bundles; a line means the same in every campaign
HARDWARE = "process"
IMAGE = releases.image_release()
CHUNK_BYTES = 1024
# Releases the terminal took before: as many as make the control record wrap round in the golden update.
SERVED_BEFORE = ("one", "two", "three", "four", "five", "old")
_FLOOR_BELOW = 2  # the floor a release sets lies this far below it
_ASSET_BYTES = 6000
_GUESTS = 3
_RSA_BYTES = 384
_RSA_EXPONENT = 65537
OVERSIZED_BYTES = 600_000
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
_CRASHES = "VERSION = {version}\nraise ValueError('this release does not start')\n"


@dataclass(frozen=True)
class Release:
    """A bundle as the campaign knows it. `files`: fingerprint of what must lie in its slot."""

    name: str
    version: int
    floor: int
    digest: bytes
    files: str
    size: int


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
    """One undisturbed update: its lives, and their steps in one row."""

    offer: str
    lives: tuple[Life, ...]
    trace: Trace

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
    binary: Path, seed: int = SEED, hardware: str = HARDWARE, machine_type: type[Machine] = Machine
) -> World:
    """Make the releases and the terminal, run the golden updates. Raises: BenchError."""
    bundles = _bundles(seed, hardware)
    hostile = _hostile(bundles, hardware)
    served = bytearray()
    spans: dict[str, Sequence[Any]] = {}
    known: dict[str, Release] = {}
    for name, bundle in (bundles | hostile).items():
        hashes = b"".join(chunk_hashes(bundle.data, CHUNK_BYTES))
        places = [_put(served, part) for part in (bundle.offer.encode(), hashes, bundle.data)]
        spans[name] = [*places, CHUNK_BYTES, bundle.manifest.version]
        if name in bundles:
            known[name] = _release(name, bundle)
    forged = {name: _put(served, frame) for name, frame in rotations.forged().items()}
    table = _powers([*bundles.values(), *hostile.values()])
    powers = _put(served, b"".join(key + value for key, value in table.items()))[0], len(table)
    served += b"\xff" * (-len(served) % SECTOR_BYTES)
    with machine_type(binary, bytes(served)) as machine:
        names = frozenset(hostile)
        world = World(binary, bytes(served), spans, known, b"", powers, hostile=names, rotations=forged)
        world = replace(world, identity=_identity())
        base, past = _in_service(machine, world)
        world = replace(world, base=base, past=past)
        return replace(world, goldens={name: _golden(machine, world, name) for name in ("new", "bad")})


def on(world: World, binary: Path, swap: str = "") -> World:
    """The same terminal with another image in it. Raises: BenchError(NO_GOLDEN_RUN)."""
    place = replace(world, binary=binary, swap=swap, goldens={})
    with place.machine() as machine:
        return replace(place, goldens={name: _golden(machine, place, name) for name in world.goldens})


def _put(served: bytearray, part: bytes) -> list[int]:
    served += b"\xff" * (-len(served) % 4)
    at = FLASH_BYTES + len(served)
    served += part
    return [at, len(part)]


def _powers(bundles: Sequence[Bundle]) -> dict[bytes, bytes]:
    """Every signature of these offers raised to the public exponent (campaign.py, `_know_powers`)."""
    found = {}
    for bundle in bundles:
        for frame in (bundle.offer.manifest_frame, bundle.offer.certificate):
            base = int.from_bytes(cbor2.loads(frame).value[3], "big")
            for signer in ("root", "release", "release-2"):
                n = keys.fixture(signer).modulus
                key = sha256(n.to_bytes(_RSA_BYTES, "big") + base.to_bytes(_RSA_BYTES, "big")).digest()
                found[key] = pow(base, _RSA_EXPONENT, n).to_bytes(_RSA_BYTES, "big")
    return found


def _release(name: str, bundle: Bundle) -> Release:
    lines, at = [], 0
    for file in bundle.manifest.files:
        lines.append(f"{file.path} {sha256(bundle.data[at : at + file.size]).hexdigest()}")
        at += file.size
    files = sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    m = bundle.manifest
    return Release(name, m.version, m.floor, bundle.hash, files, m.size)


def _bundles(seed: int, hardware: str) -> dict[str, Bundle]:
    noise = Random(seed)
    made = {}
    for number, name in enumerate((*SERVED_BEFORE, "new", "other", "bad"), start=1):
        version = IMAGE + number
        changed = {"terminal.version": _CRASHES.format(version=version)} if name == "bad" else None
        picture = noise.randbytes(_ASSET_BYTES)
        content = releases.files(releases.versioned(version, changed), hardware, {f"{name}.bin": picture})
        made[name] = make(content, version, version - _FLOOR_BELOW, hardware)
    return made


def _hostile(bundles: Mapping[str, Bundle], hardware: str) -> dict[str, Bundle]:
    """Offers that must be refused: signed for somebody else, too old, or by the wrong hand."""
    new = bundles["new"].manifest
    at, content = 0, {}
    for file in new.files:
        content[file.path] = bundles["new"].data[at : at + file.size]
        at += file.size
    evil, release = keys.fixture("evil-root"), keys.fixture("release")
    target = Target(hardware, new.version, new.floor, IMAGE, IMAGE)
    honest = certify(keys.fixture("root"), release.spki)
    successor = keys.fixture("release-2")
    unnamed = certify(keys.fixture("root"), successor.spki, rotations.NEW_EPOCH)  # no rotation leads to it
    return {
        "wrong-chip": make(content, new.version, new.floor, hardware="esp32"),
        "wrong-site": make(content, new.version, new.floor, hardware, "elsewhere"),
        "wrong-image": build_bundle(
            content, replace(target, firmware_minimum=IMAGE + 1, firmware_maximum=IMAGE + 9), release, honest
        ),
        "below-floor": make(content, bundles["old"].manifest.floor - 1, 0, hardware),
        "forged-certificate": build_bundle(
            content, target, release, certify(evil, release.spki), CHUNK_BYTES
        ),
        "forged-manifest": build_bundle(content, target, evil, honest, CHUNK_BYTES),
        "altered-manifest": _altered(bundles["new"]),
        "unnamed-key": build_bundle(content, target, successor, unnamed, CHUNK_BYTES),
        "oversized-bundle": _oversized(bundles["new"], release),
    }


def _altered(honest: Bundle) -> Bundle:
    """A manifest whose floor somebody changed after it was signed."""
    protected, unprotected, _, signature = cbor2.loads(honest.offer.manifest_frame).value
    payload = replace(honest.manifest, floor=honest.manifest.version).payload()
    frame = cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected, payload, signature]))
    return replace(honest, offer=replace(honest.offer, manifest_frame=frame))


def _oversized(honest: Bundle, release: Signer) -> Bundle:
    """A signed manifest whose one file is larger than a slot may be."""
    size = OVERSIZED_BYTES
    file = BundleFile("assets/huge.bin", size, sha256(b"").digest())
    manifest = replace(honest.manifest, size=size, files=(file,))
    offer = replace(honest.offer, manifest_frame=manifest.seal(release))
    return Bundle(offer, manifest, honest.data)


def make(content: Mapping[str, bytes], version: int, floor: int, hardware: str, group: str = "") -> Bundle:
    """Sign files as a release for the image at hand."""
    signer = keys.fixture("release")
    certificate = certify(keys.fixture("root"), signer.spki)
    target = Target(hardware, version, floor, IMAGE, IMAGE, group)
    return build_bundle(content, target, signer, certificate, CHUNK_BYTES)


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
    for name in SERVED_BEFORE:
        _follow(machine, world.script(name))
        machine.unplug()
    busy = machine.live(world.script(None, guests=_GUESTS, busy=True, unanswered=True))
    _expect(busy, 0)
    machine.unplug()
    return machine.image(), {event["past"]: event["crc"] for event in busy.events if "past" in event}


def _install_menu(image: bytearray) -> None:
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
    frame = _MENU.seal(keys.fixture("server-sign"), SITE)
    with volume.open("/menu.bin", "wb") as file:
        file.write(frame + sha256(frame).digest())
    volume.unmount()
    image[span] = volume.context.buffer


def _golden(machine: Machine, world: World, offer: str) -> Golden:
    machine.load(world.base)
    lives = _follow(machine, world.script(offer, orders=[4, 13], answers=[8], count=True))
    return Golden(offer, tuple(lives), Trace.joined([life.trace for life in lives]))


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
