"""A firmware image from the real server to a process board that has a model of a chip's bootloader in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from esp32_images import C3, published

from bench import releases
from bench.boards.base import ImageFlash
from bench.boards.catalogue import BoardRequest
from bench.boards.flashmap import FLASH_BYTES
from bench.console import Event
from bench.esp32 import appimage
from bench.faults.rules import Direction, Drop
from bench.rig import Rig, RigOptions
from bench.suites.forging import fixture_signer
from bench.suites.ota_steps import withdraw_all
from bench.terminal import COMMITTED
from bench.wait import until
from server.releases import files, words
from server.releases.bundle import Target, build_bundle, certify
from server.releases.rules import IMAGE_PATH

APP_AT = 0x10000  # of an application in a published image
APPS_AT = FLASH_BYTES + 0x10000
APP_BYTES = 0x20000
HARDWARE = "esp32c3-image"
HELLO = "o/+/+/hello"
CHUNKS = "d/+/+/ota/chunk"
CANCELLED = 7
FELL_BACK = 18
DEADLINE_S = 60


@pytest.fixture(scope="module")
def app() -> appimage.AppImage:
    return appimage.excerpt(appimage.parse(published(C3)[APP_AT:], C3), 30_000)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One server for all terminals."""
    with Rig(RigOptions(board=BoardRequest("process")), tmp_path_factory.mktemp("rig")) as rig:
        yield rig


class Case:
    """A terminal of its own whose ota_0 was flashed by cable, behind the flash map of its file."""

    def __init__(self, rig: Rig, number: int, app: appimage.AppImage) -> None:
        self.rig = rig
        self.terminal = rig.terminal_number(number)
        self.version = releases.release(0, 9, number)
        self.new = appimage.variant(app, number).encode()
        board = self.terminal.board
        board.boot_options["partitions"] = {"at": FLASH_BYTES, "size": APP_BYTES, "chip_id": 5}
        assert isinstance(board.flash, ImageFlash)
        with board.flash.path.open("r+b") as file:
            file.seek(FLASH_BYTES)
            file.write(b"\xff" * (APPS_AT - FLASH_BYTES + 2 * APP_BYTES))
            file.seek(APPS_AT)
            file.write(app.encode())

    def publish(self) -> None:
        key = fixture_signer("release")
        certificate = certify(fixture_signer("root"), key.spki)
        folder = self.rig.folder / f"release-{self.version}"
        made = build_bundle({IMAGE_PATH: self.new}, Target(HARDWARE, self.version), key, certificate, 4096)
        files.save(made, folder)
        self.rig.server.admin("release", "publish", str(folder), "--percent", "100")

    def told(self, **fields: object) -> Event:
        """Wait for what the terminal says about its image, over restarts."""
        return self.terminal.console.event(
            "ota",
            where=lambda data: (
                data.get("image") == HARDWARE
                and all(data.get(name) == value for name, value in fields.items())
            ),
            deadline_s=DEADLINE_S,
            over_resets=True,
        )

    def put_on_trial(self) -> None:
        """An image is installed and started, and meets no server: nothing proves it."""
        self.terminal.online()
        self.rig.link.rule(Direction.UP, HELLO, Drop())
        since = self.terminal.console.mark()
        self.publish()
        self.told(state="armed")
        self.terminal.console.event("ready", since=since, deadline_s=DEADLINE_S, over_resets=True)
        assert "[bootloader] starts ota_1" in self.terminal.console.transcript

    def reported(self) -> tuple[int, int, int] | None:
        """Release, slot and reason the server has heard of for its image."""
        found = self.rig.server.ledger.update_states("demo")
        device = self.terminal.board.name
        return next(
            ((s.running, s.slot, s.reason) for s in found if s.device == device and s.slot >= 3), None
        )

    def reasons(self) -> list[str]:
        """Every reason the server has heard from this terminal, in words, oldest first."""
        told = self.rig.server.admin("release", "history", self.terminal.board.name, "--json")
        return [step["reason"] for step in json.loads(told)]


@pytest.fixture
def case(request: pytest.FixtureRequest, rig: Rig, app: appimage.AppImage) -> Iterator[Case]:
    case = Case(rig, request.param, app)
    withdraw_all(rig)
    yield case
    rig.link.clear()
    case.terminal.board.power.off()


@pytest.mark.parametrize("case", [1], indirect=True)
def test_a_published_image_is_tried_confirmed_and_kept(case: Case) -> None:
    terminal = case.terminal
    terminal.online()
    case.publish()
    case.told(state="armed")
    case.told(state="confirmed", version=case.version, slot="ota_1")
    assert terminal.order().status == COMMITTED
    until(lambda: (case.reported() or ())[:2] == (case.version, 4), "the server knows what runs")
    since = terminal.console.mark()
    terminal.board.power.cycle()
    terminal.await_session(since)
    assert terminal.console.transcript.rpartition("[bootloader] ")[2].startswith("starts ota_1")


@pytest.mark.parametrize("case", [2], indirect=True)
def test_an_image_that_restarts_unproven_falls_back_and_the_server_hears_why(case: Case) -> None:
    case.put_on_trial()
    since = case.terminal.console.mark()
    case.terminal.console.post("reboot")
    case.terminal.console.event("boot", since=since, deadline_s=DEADLINE_S, over_resets=True)
    case.rig.link.clear()  # not before: a session would prove the image
    case.told(state="rolled-back", reason="fell-back", slot="ota_0")
    assert case.terminal.console.transcript.rpartition("[bootloader] ")[2].startswith("starts ota_0")
    until(lambda: words.reason(FELL_BACK) in case.reasons(), "the server knows that the image fell back")
    assert (case.reported() or ())[:2] == (0, 3)


@pytest.mark.parametrize("case", [4], indirect=True)
def test_an_operator_cancels_an_image_under_way_and_releases_it_again(case: Case) -> None:
    device = case.terminal.board.name
    case.terminal.online()
    case.rig.link.rule(Direction.DOWN, CHUNKS, Drop())
    case.publish()
    case.told(state="staging")
    case.rig.server.admin("release", "cancel", device, "--layer", "image")
    case.told(state="confirmed", reason="cancelled", slot="ota_0")
    case.rig.link.clear()
    until(lambda: words.reason(CANCELLED) in case.reasons(), "the server knows that it was given up")
    case.rig.server.admin("release", "release-quarantine", device, "--layer", "image")
    case.told(state="confirmed", version=case.version, slot="ota_1")


@pytest.mark.parametrize("case", [3], indirect=True)
def test_pulling_the_plug_during_the_trial_costs_nothing(case: Case) -> None:
    case.put_on_trial()
    case.terminal.board.power.cycle()
    case.rig.link.clear()
    case.told(state="confirmed", version=case.version, slot="ota_1")
