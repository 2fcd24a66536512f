"""Steps of the ota suite: bundles made for the board at hand, offered, followed, and forgotten again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bench import releases
from bench.console import Event, Json
from bench.errors import check
from bench.faults.mqtt import Publish
from bench.faults.rules import Direction
from bench.rig import Rig
from bench.suites import volume
from bench.suites.forging import fixture_signer
from bench.terminal import Terminal
from bench.wait import until
from server.releases import files as release_files
from server.releases.bundle import Bundle, Target
from server.wire.updates import Offer

CHUNKS, GETS = "d/+/+/ota/chunk", "o/+/+/ota/get"
HARDWARE = {"qemu": "qemu-rv32", "process": "process"}
SLOTS = ("a", "b", "factory")
UPDATE_DEADLINE_S = 20.0
IMAGE = releases.image_release()


@dataclass(frozen=True)
class Update:
    """One release: its number and its signed bundle."""

    version: int
    content: Mapping[str, bytes]
    bundle: Bundle


def text(version: int) -> str:
    """A release number as the terminal writes it."""
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"


def make(
    rig: Rig,
    patch: int,
    changed: Mapping[str, str] | None = None,
    assets: Mapping[str, bytes] | None = None,
    floor: int = 0,
    named: int | None = None,
) -> Update:
    """An update of the image's release to `patch`; `named`: what its application calls itself instead."""
    hardware = HARDWARE[rig.board.kind]
    version = IMAGE + patch
    sources = releases.versioned(named or version, changed)
    content = releases.files(sources, hardware, assets)
    return Update(version, content, releases.bundle(target(hardware, version, floor), content))


def target(hardware: str, version: int, floor: int = 0, image: int = IMAGE) -> Target:
    """What a bundle of changed modules is for: this hardware, and this very image."""
    return Target(hardware, version, floor, image, image)


def publish(rig: Rig, update: Update, percent: int = 100) -> None:
    """Let the server offer it to this share of the terminals."""
    folder = rig.folder / "releases" / update.bundle.hash[:8].hex()
    release_files.save(update.bundle, folder)
    rig.server.admin("release", "publish", str(folder), "--percent", str(percent))


def withdraw_all(rig: Rig) -> None:
    """Let the server offer nothing."""
    for release in json.loads(rig.server.admin("release", "list", "--json")):
        rig.server.admin("release", "withdraw", release["reference"])


def as_delivered(rig: Rig) -> Terminal:
    """The terminal as it left the factory: no bundle, no record, nothing on offer; online."""
    withdraw_all(rig)
    terminal, flash = rig.terminal, rig.board.flash
    assert flash is not None
    if set(flash_of_control(rig)) != {0xFF}:
        terminal.board.power.off()
        flash.erase("control")
    terminal.online()
    return terminal


def flash_of_control(rig: Rig) -> bytes:
    """The control record's region as it lies in flash now."""
    assert rig.board.flash is not None
    return rig.board.flash.read("control")


def await_ota(
    terminal: Terminal, since: int, deadline_s: float = UPDATE_DEADLINE_S, **fields: object
) -> Event:
    """Wait for an @ota event with these fields, over restarts."""
    return terminal.console.event(
        "ota",
        since=since,
        where=lambda data: all(data.get(name) == value for name, value in fields.items()),
        deadline_s=UPDATE_DEADLINE_S,
        over_resets=True,
    )


def await_running(terminal: Terminal, since: int, update: Update) -> Event:
    """Wait until this update is confirmed."""
    return await_ota(terminal, since, state="confirmed", version=update.version)


def install(rig: Rig, update: Update) -> Event:
    """Publish an update and wait until the terminal has confirmed it."""
    since = rig.terminal.console.mark()
    publish(rig, update)
    confirmed = await_running(rig.terminal, since, update)
    rig.terminal.online()
    return confirmed


def runs(rig: Rig, version: int, slot: str) -> Json:
    """The terminal runs this release from this slot, and the server knows it."""
    info = rig.terminal.rpc("info")
    seen = (info["firmware"], info["slot"])
    check(seen == (text(version), slot), f"the terminal runs {seen}, not {(text(version), slot)}")
    until(
        lambda: reported(rig) == (version, slot),
        f"the server knows that {text(version)} runs from {slot} (it knows {reported(rig)})",
    )
    return info


def reported(rig: Rig) -> tuple[int, str] | None:
    """Release and slot the terminal last told the server."""
    states = rig.server.ledger.update_states(rig.options.site)
    return next(((s.running, SLOTS[s.slot]) for s in states if s.device == "t-0001"), None)


def offer(rig: Rig, frame: bytes) -> int:
    """Put an offer before the terminal that the server did not make; returns the event mark before it."""
    since = rig.terminal.console.mark()
    rig.link.inject(Direction.DOWN, Publish(f"d/{rig.options.site}/t-0001/ota/offer", frame), "t-0001")
    return since


def refuses(rig: Rig, frame: bytes, reason: str) -> None:
    """The terminal refuses an offer for this reason, asks for nothing of it and changes nothing in flash."""
    record = flash_of_control(rig)
    gets = rig.link.tap(Direction.UP, GETS)
    since = offer(rig, frame)
    await_ota(rig.terminal, since, reason=reason, state="confirmed")
    check(not gets.seen, "the terminal asked for a bundle it should refuse")
    check(flash_of_control(rig) == record, "a refused offer changed the control record")


def signed_by_another(update: Update) -> bytes:
    """The offer with its manifest signed by a key other than the certificate's."""
    forged = update.bundle.manifest.seal(fixture_signer("evil-root"))
    return Offer(forged, update.bundle.offer.certificate).encode()


def slot_files(rig: Rig, slot: str) -> dict[str, bytes]:
    """What lies in a slot of the terminal, which is off, by path."""
    found: dict[str, bytes] = {}
    base = f"/slot/{slot}/app"
    with volume.opened(rig.board.flash, keep=False) as files:
        for folder, _, names in files.walk(base):
            for name in names:
                path = f"{folder.rstrip('/')}/{name}"
                with files.open(path, "rb") as file:
                    found[path.removeprefix(base + "/")] = file.read()
    return found


def damage(rig: Rig, slot: str) -> None:
    """Change one byte of the version module in a slot of the terminal, which is off."""
    path = f"/slot/{slot}/app/terminal/version.mpy"
    with volume.opened(rig.board.flash) as files:
        with files.open(path, "rb") as file:
            content = bytearray(file.read())
        content[-1] ^= 1
        with files.open(path, "wb") as file:
            file.write(bytes(content))


def flash_steps(event: Event) -> int:
    """Flash steps since the boot, as an @ota event counts them: page programs, 16 for each erased sector."""
    flash = event.data["flash"]
    return int(flash["programs"]) + 16 * int(flash["erases"])
