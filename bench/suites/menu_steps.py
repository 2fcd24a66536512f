"""Editions of the menu for the menu suite: each differs from every other in nearly every price.

An edition raises every price but the espresso's by a few cents that depend on its version, so a listing that
mixes two editions matches neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from littlefs.errors import LittleFSError

from bench.boards.flashmap import SECTOR_BYTES
from bench.errors import BenchError, check
from bench.faults.rules import Direction, Hold
from bench.paths import DEMO_MENU
from bench.rig import Rig
from bench.suites import volume
from bench.suites.forging import fixture_signer, open_beacon
from bench.suites.steps import ESPRESSO_ID
from bench.terminal import Terminal
from bench.wait import until
from server.devices.keys import KeyStore
from server.wire.menufile import parse_menu
from server.wire.menus import MenuChunk

MENU_CHUNKS = "s/+/menu/+"
FILLER = "filler"
PAGE_ITEMS = 30  # a terminal has memory for a few pages of its menu as text, not for all of it
FLAT_WHITE_ID, RIB_EYE_ID, SCOOPS_ID = 3, 180, 204
_CENTS = 89  # raises repeat only after that many editions


@dataclass(frozen=True)
class Edition:
    """A published menu: its version and every item's price in minor units."""

    version: int
    prices: dict[int, int]


def raised(version: int) -> Edition:
    """What the edition of that number costs."""
    raise_minor = version % _CENTS + 1
    prices = {item["id"]: item["price_minor"] for item in json.loads(DEMO_MENU.read_text())["items"]}
    return Edition(version, {i: price + raise_minor * (i != ESPRESSO_ID) for i, price in prices.items()})


def current_version(rig: Rig) -> int:
    """The version the server has published last."""
    return int(json.loads(rig.server.admin("menu", "show", "--json"))["version"])


def publish(rig: Rig) -> Edition:
    """Publish the next edition."""
    edition = raised(current_version(rig) + 1)
    document = json.loads(DEMO_MENU.read_text())
    document["version"] = edition.version
    for item in document["items"]:
        item["price_minor"] = edition.prices[item["id"]]
    file = rig.folder / "menu.json"
    file.write_text(json.dumps(document))
    rig.server.admin("menu", "publish", str(file))
    return edition


def announced(rig: Rig, edition: Edition) -> None:
    """Wait until the server's beacon names this edition."""
    with rig.impostor() as watcher:
        until(
            lambda: open_beacon(watcher.beacon(), rig.options.site).menu_version == edition.version,
            f"a beacon that names menu {edition.version}",
        )


def publish_demo(rig: Rig) -> int:
    """Publish the demo menu as it is, under the next number; returns that."""
    rig.server.admin("menu", "publish", str(DEMO_MENU), "--next")
    return current_version(rig)


def update(rig: Rig) -> Edition:
    """Publish the next edition and wait until the terminal uses it."""
    edition = publish(rig)
    await_edition(rig.terminal, edition)
    return edition


def await_edition(terminal: Terminal, edition: Edition, deadline_s: float = 20.0) -> None:
    """Wait until the terminal uses this edition, whole."""
    await_version(terminal, edition.version, deadline_s)
    check(shown(terminal) == edition, f"menu {edition.version} is not shown as it was published")


def await_version(terminal: Terminal, version: int, deadline_s: float = 20.0) -> None:
    """Wait until the terminal reports the menu of that version."""
    terminal.console.event("menu", where=lambda data: data["version"] == version, deadline_s=deadline_s)


def shown(terminal: Terminal) -> Edition:
    """Version and prices as the terminal shows them now."""
    version = int(terminal.rpc("info")["menu"])
    prices: dict[int, int] = {}
    while page := terminal.rpc("menu", first=len(prices), count=PAGE_ITEMS)["items"]:
        prices.update((item, price) for item, _, price in page)
    return Edition(version, prices)


def keeps(terminal: Terminal, edition: Edition, seconds: float = 0.0) -> None:
    """The terminal shows exactly this edition, also after `seconds`."""
    check(shown(terminal) == edition, f"the terminal no longer shows the whole menu {edition.version}")
    if seconds:
        terminal.rpc("sleep", ms=int(seconds * 1000))
        check(shown(terminal) == edition, f"the terminal gave up menu {edition.version}")


def offline(rig: Rig) -> None:
    """Shut the link and wait until the terminal has noticed."""
    since = rig.terminal.console.mark()
    was_online = bool(rig.terminal.rpc("info")["online"])
    rig.link.refuse()
    if was_online:
        rig.terminal.console.event("offline", since=since)


def chunk_change(change: Callable[[MenuChunk], MenuChunk]) -> Callable[[bytes], bytes]:
    """A payload change that sees the menu chunk inside."""

    def rewrite(payload: bytes) -> bytes:
        return change(MenuChunk.decode(payload)).encode()

    return rewrite


def evil_menu(rig: Rig, version: int) -> bytes:
    """A menu-frame of that version with slightly other prices, signed by a key that is not the server's."""
    menu = parse_menu(DEMO_MENU.read_text())
    items = tuple(replace(item, price_minor=item.price_minor ^ 1) for item in menu.items)
    return replace(menu, version=version, items=items).seal(fixture_signer("server-sign"), rig.options.site)


def announcing(rig: Rig, menu_hash: bytes) -> Callable[[bytes], bytes]:
    """A change of beacons: the server itself, its key in other hands, announces the menu of that hash."""
    signer = KeyStore(rig.server.state / "keys", rig.options.site).server_sign

    def rewrite(frame: bytes) -> bytes:
        return replace(open_beacon(frame, rig.options.site), menu_hash=menu_hash).seal(signer)

    return rewrite


def release_to_the_end(rig: Rig, hold: Hold) -> None:
    """Let held chunks pass to a terminal whose power may fail before it has them all."""
    try:
        rig.link.release(hold, Direction.DOWN, "t-0001")
    except BenchError as error:
        if error.code != "NOT_CONNECTED":
            raise


def fill_file_system(rig: Rig) -> int:
    """While the terminal is off, fill its file system to the last block; returns the bytes that took."""
    taken = count = 0
    blocks = 64
    with volume.opened(rig.board.flash) as files:
        while blocks:
            name = f"{FILLER}{count}"
            try:
                with files.open(name, "wb") as file:
                    file.write(bytes(blocks * SECTOR_BYTES - 64))
            except LittleFSError as error:
                if error.code != LittleFSError.Error.LFS_ERR_NOSPC:
                    raise
                files.remove(name)
                blocks //= 2
            else:
                count += 1
                taken += blocks * SECTOR_BYTES
    return taken


def empty_file_system(rig: Rig) -> None:
    """Take away what fill_file_system put there."""
    with volume.opened(rig.board.flash) as files:
        for name in files.listdir("/"):
            if name.startswith(FILLER):
                files.remove(name)
