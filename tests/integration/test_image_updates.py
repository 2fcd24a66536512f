"""A firmware update on a modelled ESP32-C3 with real MicroPython images, and everything it refuses."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from esp32_images import C3, FOLDER, published

from bench.campaign.signer import fixture
from bench.esp32 import appimage
from bench.esp32.layout import load_layout
from bench.paths import FIXTURE_KEYS, ROOT
from server.releases.bundle import certify, chunk_hashes
from server.wire.updates import BundleFile, Manifest, Offer

sys.path.insert(0, str(ROOT / "firmware" / "boards" / "process"))
sys.path.insert(0, str(ROOT / "firmware"))

from boards.host.hostboard import HostBoard
from boards.host.nor import Nor
from partitions import ABORTED, VALID, Machine, partition_class
from terminal.ota import image_boot, states
from terminal.ota.hook import Updates
from terminal.ota.image_agent import ImageAgent
from terminal.ota.record import ControlRecord
from terminal.wire.rsa import PublicKey

SECTOR = 4096
PATH = "image/micropython.bin"
HARDWARE = "esp32c3-image"
POWER_ON, RESET = 1, 2
APP_AT = 0x10000  # of an application in a published image
DEADLINE_S = 60


@pytest.fixture(scope="module")
def app() -> appimage.AppImage:
    return appimage.parse(published(C3)[APP_AT:], C3)


class Release:
    """A signed image; every argument exists to make one wrong. `data` is what the manifest names, `served`
    what the server sends."""

    def __init__(
        self,
        data: bytes,
        version: int = 2,
        floor: int = 0,
        hardware: str = HARDWARE,
        group: str = "",
        firmware: tuple[int, int] = (0, 0xFFFF),
        path: str = PATH,
        chunk: int = SECTOR,
        signer: str = "release",
        served: bytes | None = None,
    ) -> None:
        self.served = data if served is None else served
        self.chunk = chunk
        self.hashes = b"".join(chunk_hashes(self.served, chunk))
        manifest = Manifest(
            hardware=hardware,
            group=group,
            version=version,
            floor=floor,
            firmware_minimum=firmware[0],
            firmware_maximum=firmware[1],
            size=len(data),
            chunk_size=chunk,
            files=(BundleFile(path, len(data), hashlib.sha256(data).digest()),),
            chunks=hashlib.sha256(self.hashes).digest(),
        )
        key = fixture(signer)
        certificate = certify(fixture("root"), fixture("release").spki)
        self.offer = Offer(manifest.seal(key), certificate).encode()
        self.digest = hashlib.sha256(cbor2.loads(self.offer)[0]).digest()

    def answers(self, request: bytes) -> list[bytes]:
        ref, what, first, count = cbor2.loads(request)
        source, step = (self.served, self.chunk) if what else (self.hashes, 1024)
        found = range(first, min(first + count, -(-len(source) // step)))
        return [cbor2.dumps([ref, what, n, source[n * step : (n + 1) * step]]) for n in found]


class Chip(HostBoard):
    """A terminal on a flash of 4 MB with our partition table; ota_0 was flashed by cable."""

    def __init__(self, root: Path, app: bytes, rollback: bool = True) -> None:
        super().__init__(root, hardware="esp32")
        layout = load_layout()
        self.flash = Nor(0x400000)
        regions = [layout["ota_0"], layout["ota_1"]]
        apps = [(self.flash.region(p.offset, p.size), p.offset, p.size) for p in regions]
        otadata = self.flash.region(layout["otadata"].offset, layout["otadata"].size)
        self.machine = Machine(otadata, apps, 5, rollback)
        at = layout["ota_0"].offset
        self.flash.data[at : at + len(app)] = app
        self.cause = POWER_ON
        self.image_on_trial = self.image_pending = False

    def images(self) -> Any:
        return partition_class(self.machine)

    def reset_cause(self) -> int:
        return self.cause

    def start(self, cause: int = RESET) -> int:
        """The bootloader and our start-up, with the restarts they want -> the image that runs."""
        for _ in range(3):
            self.cause = cause
            self.machine.boot()
            if image_boot.main(self):
                return int(self.machine.running)
            cause = RESET
        raise AssertionError("it restarts for ever")

    def state(self) -> Any:
        return ControlRecord(self.region("image")).state

    def holds(self, number: int, data: bytes) -> bool:
        at = self.machine.apps[number][1]
        return bytes(self.flash.data[at : at + len(data)]) == data


class Session:
    """The update agent of a running chip, and a server that answers it."""

    def __init__(self, chip: Chip, release: Release, limit: int = 10_000) -> None:
        self.release = release
        self.told: list[list[int]] = []
        self.requests: list[list[Any]] = []
        self.over = asyncio.Event()
        self.awaited = -1
        self._limit = limit
        root = PublicKey.from_spki((FIXTURE_KEYS / "root.pub.der").read_bytes())
        self.agent = ImageAgent(
            chip, root, "demo", "factory", 0x100, self._send, lambda event: None, self.over.set
        )

    def _send(self, kind: str, payload: bytes) -> bool:
        if kind == "state":
            self.told.append(cbor2.loads(payload))
            if self.told[-1][4] == self.awaited:
                self.over.set()
            return True
        self.requests.append(cbor2.loads(payload))
        if len(self.requests) > self._limit:
            self.over.set()
            return False
        for frame in self.release.answers(payload):
            asyncio.get_running_loop().call_soon(self.agent.on_chunk, frame)
        return True

    def run(self, awaited: int = -1) -> None:
        """Offer the release; until the chip restarts, or tells this reason."""
        self.awaited = awaited
        self.agent.on_offer(self.release.offer)

        async def until() -> None:
            task = asyncio.create_task(self.agent.run())
            try:
                await asyncio.wait_for(self.over.wait(), DEADLINE_S)
            finally:
                task.cancel()

        asyncio.run(until())


@pytest.fixture
def chip(tmp_path: Path, app: appimage.AppImage) -> Chip:
    chip = Chip(tmp_path, app.encode())
    assert chip.start(POWER_ON) == 0
    return chip


def small(app: appimage.AppImage, number: int = 1) -> bytes:
    """An image of real bytes that is quickly fetched."""
    return appimage.variant(appimage.excerpt(app, 18000), number).encode()


def test_a_real_image_is_fetched_verified_tried_and_confirmed(chip: Chip, app: appimage.AppImage) -> None:
    new = appimage.variant(app, 1).encode()
    assert len(new) > 1_600_000
    session = Session(chip, Release(new, version=2, floor=2))
    session.run()
    assert chip.holds(1, new)
    assert chip.state().state == states.ARMED
    assert chip.machine.running == 0, "nothing was changed under the image that runs"

    assert chip.start() == 1
    assert chip.image_on_trial
    assert chip.state().floor == 0
    trial = Session(chip, session.release)
    assert trial.agent.confirm()
    state = chip.state()
    assert (state.state, state.slot, state.version, state.floor) == (states.CONFIRMED, 1, 2, 2)
    assert chip.machine.otadata.read()[chip.machine.otadata.active()][1] == VALID
    assert chip.start(POWER_ON) == 1
    assert not chip.image_on_trial
    assert chip.flash.violations == 0


def test_the_next_image_goes_into_the_other_partition(chip: Chip, app: appimage.AppImage) -> None:
    for number, expected in ((2, 1), (3, 0), (4, 1)):
        Session(chip, Release(small(app, number), version=number)).run()
        assert chip.start() == expected
        assert Session(chip, Release(small(app, number), version=number)).agent.confirm()
        assert chip.state().version == number


def test_an_image_that_does_not_confirm_falls_back_and_says_so(chip: Chip, app: appimage.AppImage) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    assert chip.start() == 1
    assert chip.start() == 0  # a watchdog, say
    assert ABORTED in [entry[1] for entry in chip.machine.otadata.read()]
    session = Session(chip, release)
    session.run(states.QUARANTINED)
    assert session.told[0] == [0, 3, states.ROLLED_BACK, 0, states.FELL_BACK, release.digest[:6]]
    assert session.requests == [], "an image that failed is not fetched again"


def test_pulling_the_plug_during_the_trial_does_not_condemn_the_image(
    chip: Chip, app: appimage.AppImage
) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    assert chip.start() == 1
    assert chip.start(POWER_ON) == 1, "the bootloader went back, our record knows why and tries again"
    assert Session(chip, release).agent.confirm()


@pytest.mark.parametrize("cause", [POWER_ON, RESET])
def test_an_image_on_trial_waits_for_a_network_as_long_as_it_takes(
    chip: Chip, app: appimage.AppImage, cause: int
) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    assert chip.start() == 1
    for _ in range(2 * states.MAX_STARTS):
        Session(chip, release).agent.lasted()
        assert chip.start(cause) == 1
    assert Session(chip, release).agent.confirm()


def test_an_image_that_rotted_before_its_trial_is_fetched_again(chip: Chip, app: appimage.AppImage) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    chip.flash.data[chip.machine.apps[1][1] + 5000] ^= 4
    assert chip.start() == 0
    session = Session(chip, release)
    session.run()
    assert session.told[0] == [0, 3, states.ROLLED_BACK, 0, states.SLOT_BAD, release.digest[:8]]
    assert chip.start() == 1
    assert Session(chip, release).agent.confirm()


def test_a_brown_out_loop_ends(chip: Chip, app: appimage.AppImage) -> None:
    Session(chip, Release(small(app))).run()
    chip.start()
    for _ in range(2 * states.MAX_STARTS):
        if chip.start(POWER_ON) == 0:
            break
    assert (chip.machine.running, chip.state().reason) == (0, states.STARTS_SPENT)


def test_a_confirmed_image_that_rots_is_reported(chip: Chip, app: appimage.AppImage) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    chip.start()
    Session(chip, release).agent.confirm()
    chip.flash.data[chip.machine.apps[1][1] + 5000] ^= 4
    assert chip.start(POWER_ON) == 0
    session = Session(chip, release)
    session.agent._tell()
    assert session.told[-1][:2] == [0, 3]
    assert session.told[-1][4] == states.IMAGE_LOST


def test_a_chip_flashed_by_cable_behind_our_back_does_not_tell_an_old_release(
    chip: Chip, app: appimage.AppImage
) -> None:
    for number in (2, 3):
        Session(chip, Release(small(app, number), version=number)).run()
        chip.start()
        Session(chip, Release(small(app, number), version=number)).agent.confirm()
    other = small(app, 9)
    at = chip.machine.apps[0][1]
    chip.flash.data[at : at + len(other)] = other
    assert chip.start(POWER_ON) == 0
    assert (chip.state().version, chip.state().reason) == (0, states.IMAGE_UNKNOWN)


def test_an_interrupted_download_goes_on_at_the_first_wrong_sector(
    chip: Chip, app: appimage.AppImage
) -> None:
    release = Release(small(app))
    Session(chip, release, limit=2).run()
    chip.start(POWER_ON)
    session = Session(chip, release)
    session.run()
    asked = [request for request in session.requests if request[1]]
    assert asked[0][2] > 0
    assert chip.holds(1, small(app))


def test_an_image_waits_while_the_application_is_on_trial(chip: Chip, app: appimage.AppImage) -> None:
    record = ControlRecord(chip.region("control"))
    record.store(record.state.but(state=states.TRIAL, other_hash=b"x" * 32))
    session = Session(chip, Release(small(app)))
    session.run(states.NOT_NOW)
    assert session.requests == []


def test_an_application_waits_while_an_image_is_on_trial(chip: Chip) -> None:
    chip.image_on_trial = True
    updates = Updates(None, lambda: True, chip, None, "demo", "factory", 0x100, None, None, None)
    updates.on_offer(b"some bundle")
    assert updates.agent is None


def other_chip(name: str) -> bytes:
    """The application of another chip's published image."""
    image = published(FOLDER + name)
    at = next(at for at in (0x10000, 0x10000 - 0x1000) if image[at] == 0xE9)
    return image[at:]


def without_hash(image: bytes) -> bytes:
    return image[:23] + b"\0" + image[24:]


REFUSED: list[tuple[str, int, Callable[[bytes], Release]]] = [
    ("another chip's class", states.WRONG_TARGET, lambda image: Release(image, hardware="esp32s3-image")),
    ("an application's class", states.WRONG_TARGET, lambda image: Release(image, hardware="esp32")),
    ("another group", states.WRONG_TARGET, lambda image: Release(image, group="elsewhere")),
    ("another precursor", states.WRONG_TARGET, lambda image: Release(image, firmware=(7, 9))),
    ("another file", states.BAD_MANIFEST, lambda image: Release(image, path="terminal/app.py")),
    ("chunks that are no sectors", states.BAD_MANIFEST, lambda image: Release(image, chunk=1024)),
    ("another signer", states.BAD_SIGNATURE, lambda image: Release(image, signer="server-sign")),
    ("nothing", states.BAD_MANIFEST, lambda image: Release(image[:24])),
    ("no image", states.IMAGE_REFUSED, lambda image: Release(b"MZ" + image[2:])),
    ("no hash appended", states.IMAGE_REFUSED, lambda image: Release(without_hash(image))),
    ("a truncated image", states.IMAGE_REFUSED, lambda image: Release(image[:-5000])),
    ("a flipped bit", states.IMAGE_REFUSED, lambda image: Release(image[:9000] + b"?" + image[9001:])),
    (
        "another hash than the signed one",
        states.BAD_BYTES,
        lambda image: Release(image, served=image[:9000] + b"?" + image[9001:]),
    ),
]


@pytest.mark.parametrize(("reason", "wrong"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_is_refused(
    chip: Chip, app: appimage.AppImage, reason: int, wrong: Callable[[bytes], Release]
) -> None:
    session = Session(chip, wrong(small(app)))
    session.run(reason)
    assert session.told[-1][4] == reason
    assert not session.over.is_set() or chip.state().state in (states.CONFIRMED, states.ROLLED_BACK)
    assert chip.start() == 0, "what ran before goes on running"
    assert chip.machine.otadata.read()[1][0] == 0xFFFFFFFF, "the bootloader never heard of it"


@pytest.mark.parametrize("name", ["esp32-20251209-v1.27.0.bin", "esp32s3-8MBflash-20251209-v1.27.0.bin"])
def test_a_real_image_of_another_chip_is_refused_at_its_first_sector(chip: Chip, name: str) -> None:
    session = Session(chip, Release(other_chip(name)[:100_000]))
    session.run(states.WRONG_TARGET)
    assert not chip.holds(1, other_chip(name)[:SECTOR])


def test_a_real_image_for_larger_partitions_is_refused_before_anything_is_fetched(chip: Chip) -> None:
    image = published(FOLDER + "micrOS-esp32c3-1.28.0-3.7.2.bin")[APP_AT:]
    assert len(image) > load_layout()["ota_1"].size
    session = Session(chip, Release(image))
    session.run(states.NO_SPACE)
    assert session.requests == []


def test_the_floor_and_a_second_offer_of_the_same_image(chip: Chip, app: appimage.AppImage) -> None:
    release = Release(small(app), version=5, floor=5)
    Session(chip, release).run()
    chip.start()
    Session(chip, release).agent.confirm()
    for offered, reason in ((release, states.ALREADY_THERE), (Release(small(app, 2), version=4), 11)):
        session = Session(chip, offered)
        session.run(reason)
        assert session.requests == []


def test_an_operator_takes_an_image_on_trial_back(chip: Chip, app: appimage.AppImage) -> None:
    release = Release(small(app))
    Session(chip, release).run()
    chip.start()
    session = Session(chip, release)
    session.agent.cancel()
    assert session.over.is_set(), "it restarts for the old image"
    assert chip.start() == 0
    assert chip.state().is_quarantined(release.digest)
