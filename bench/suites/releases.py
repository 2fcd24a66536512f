"""Suite releases: a release reaches the terminals its rollout names, and stops by itself when it is bad.

The rollouts are the operator's own commands on the running server; the terminals are real ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.boards.base import INSTRET
from bench.errors import check
from bench.faults.link import Capture
from bench.faults.rules import Direction
from bench.rig import Rig
from bench.suites.ota import BROKEN
from bench.suites.ota_steps import (
    IMAGE,
    Update,
    as_delivered,
    await_ota,
    await_running,
    make,
    offer,
    runs,
    text,
    withdraw_all,
)
from bench.suites.registry import Suite
from bench.suites.steps import good_order_works
from bench.suites.throughput import counting
from bench.terminal import Terminal
from bench.wait import until
from server.releases import files as release_files
from server.releases.rollout import WHOLE_SHARE, place

SUITE = Suite("releases", "A release reaches whom its rollout names, and stops by itself when it is bad.")
DEVICE = "t-0001"
OFFERS = f"d/+/{DEVICE}/ota/offer"
PADDING_BYTES = 160 * 1024
TAPS, TAP_MS = 12, 230
TAPS_DEADLINE_S = 90.0
DELAY_LIMIT_MS = 100
ERASE_US, PROGRAM_US = (
    45_000,
    400,
)  # typical of a 4 KiB sector and of a page, W25Q32JV data sheet, section 9.6
FLASH_NOTE = "exact time, flash as slow as a chip's"
PATIENCE_S = 0.3  # an order that waits longer for its answer does not hold a download up for ever


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session and no update."""
    as_delivered(rig)


def publish(rig: Rig, update: Update, *options: str) -> str:
    """Publish a release; nobody gets it unless the options say so. Returns its reference."""
    folder = rig.folder / "releases" / update.bundle.hash[:8].hex()
    release_files.save(update.bundle, folder)
    return str(
        json.loads(rig.server.admin("release", "publish", str(folder), "--json", *options))["reference"]
    )


def status(rig: Rig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `release status` says of the newest release and of the terminal."""
    told = json.loads(rig.server.admin("release", "status", "--json"))
    return told["releases"][-1], next(one for one in told["terminals"] if one["device"] == DEVICE)


@SUITE.case("a_rollout_reaches_a_terminal_when_its_share_does")
def a_rollout_reaches_a_terminal_when_its_share_does(rig: Rig) -> str:
    """Below its place a terminal hears nothing of a release; at 100 percent it installs it and says so."""
    terminal = as_delivered(rig)
    update = make(rig, 1)
    since = terminal.console.mark()
    heard = rig.link.tap(Direction.DOWN, OFFERS)
    mine = place(DEVICE, update.bundle.hash[:8])
    ref = publish(rig, update, "--percent", f"{min(mine, WHOLE_SHARE - 1) / 100:.2f}")
    terminal.rpc("rekey")  # a new session asks anew
    until(lambda: status(rig)[1]["hardware"] != "", "the terminal has asked")
    good_order_works(rig)
    check(not heard.seen, "a terminal outside the share was offered the release")
    rig.server.admin("release", "rollout", ref, "--percent", "100")
    await_running(terminal, since, update)
    runs(rig, update.version, "a")
    until(lambda: status(rig)[0]["installed"] == 1, "the rollout counts the terminal as installed")
    seen = status(rig)[1]
    check(
        (seen["version"], seen["slot"], seen["state"], seen["reason"])
        == (text(update.version), "a", "confirmed", ""),
        f"status says {seen}",
    )
    steps = json.loads(rig.server.admin("release", "history", DEVICE, "--json"))
    way = [step["state"] for step in steps[-5:]]
    check(way[-1] == "confirmed" and "on trial" in way and "downloading" in way, f"its history is {way}")
    return f"place {mine / 100:g} % of {ref}"


@SUITE.case("a_bad_release_halts_by_itself_and_says_why")
def a_bad_release_halts_by_itself_and_says_why(rig: Rig) -> str:
    """One rollback is over the limit: the rollout halts, nothing of it is served, status names the cause."""
    terminal = as_delivered(rig)
    bad = make(rig, 1, changed={"terminal.app": BROKEN})
    since = terminal.console.mark()
    ref = publish(rig, bad, "--percent", "100")
    await_ota(terminal, since, state="rolled-back", reason="tries-spent")
    until(lambda: status(rig)[0]["state"] == "halted", "the rollout halts by itself")
    release, seen = status(rig)
    check("1 of 1 terminals failed" in release["reason"], f"the rollout's reason is {release['reason']!r}")
    check("three times" in seen["reason"], f"the terminal's reason is {seen['reason']!r}")
    terminal.online()
    runs(rig, IMAGE, "factory")
    rig.server.restart()
    check(status(rig)[0]["state"] == "halted", "a restart let the halted rollout go on")
    withdraw_all(rig)
    terminal.online()
    good_order_works(rig)
    return f"{ref}: {release['reason']}"


@SUITE.case("an_offer_the_server_does_not_name_is_refused")
def an_offer_the_server_does_not_name_is_refused(rig: Rig) -> None:
    """A genuine offer replayed after its rollout was halted installs nothing: the answer does not name it."""
    terminal = as_delivered(rig)
    update = make(rig, 1)
    ref = publish(rig, update, "--percent", "0")
    rig.server.admin("release", "halt", ref)
    since = offer(rig, update.bundle.offer.encode())
    await_ota(terminal, since, state="confirmed", reason="stale-offer")
    withdraw_all(rig)
    runs(rig, IMAGE, "factory")


# ---------------------------------------------------------------- orders beside a download


def watched(rig: Rig) -> Terminal:
    """A terminal whose flash takes a chip's time; where the board has exact time, one with that."""
    if INSTRET in rig.features:
        withdraw_all(rig)
        rig.board.power.off()  # it would take the release as well
        terminal = counting(rig)
    else:
        terminal = as_delivered(rig)
    terminal.rpc("flash_times", erase_us=ERASE_US, program_us=PROGRAM_US)
    return terminal


def requests_beside_orders(rig: Rig, captures: Sequence[Capture], device: str) -> int:
    """How often a terminal asked for more of a release while an order of its waited for an answer."""
    site, since_s, count = rig.options.site, None, 0
    for capture in captures:
        topic = capture.publish.topic
        if topic == f"o/{site}/{device}/op":
            since_s = capture.at_s
        elif topic == f"d/{site}/{device}/reply":
            since_s = None
        elif topic == f"o/{site}/{device}/ota/get" and since_s is not None:
            count += capture.at_s - since_s < PATIENCE_S
    return count


@SUITE.case("orders_are_not_delayed_by_a_download", deadline_s=240)
def orders_are_not_delayed_by_a_download(rig: Rig) -> str:
    """An order placed while a release is fetched waits for one operation in flash at most, never for two."""
    terminal = watched(rig)
    device = terminal.board.name
    alone = terminal.rpc("taps", n=TAPS, every_ms=TAP_MS, deadline_s=TAPS_DEADLINE_S)
    update = make(rig, 1, assets={"padding.bin": rig.random.randbytes(PADDING_BYTES)})
    since, passed = terminal.console.mark(), len(rig.link.captures)
    terminal.rpc("turns", watch=True)
    publish(rig, update, "--percent", "100")
    await_ota(terminal, since, state="staging")
    during = terminal.rpc("taps", n=TAPS, every_ms=TAP_MS, deadline_s=TAPS_DEADLINE_S)
    turns = terminal.rpc("turns", watch=False)
    fetched = [event.data["state"] for event in terminal.console.events("ota", since)]
    check("armed" not in fetched, "the download was over before the orders were")
    withdraw_all(rig)
    terminal.board.power.off()
    assert terminal.board.flash is not None
    terminal.board.flash.erase("control")
    asked = requests_beside_orders(rig, rig.link.captures[passed:], device)
    longest_ms, slowest_ms = turns["longest_us"] / 1000, max(during["handed_us"]) / 1000
    limit = f"<= {DELAY_LIMIT_MS}" if INSTRET in rig.features else None  # elsewhere the host's time is in it
    rig.measure("erases_in_one_turn", turns["erases"], "sectors", "<= 1", note="during a download, at most")
    rig.measure("erases_while_an_order_waits", during["erases"], "sectors", "== 0")
    rig.measure("requests_while_an_order_waits", asked, "", "== 0", note="for more of the release")
    rig.measure("longest_turn_during_download_ms", longest_ms, "ms", limit, note=FLASH_NOTE)
    rig.measure(
        "slowest_order_during_download_ms", slowest_ms, "ms", limit, note=f"tap to network; {FLASH_NOTE}"
    )
    return (
        f"tap to network {max(alone['handed_us']) / 1000:.0f} ms alone, {slowest_ms:.0f} ms during a download"
    )
