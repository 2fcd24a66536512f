"""Suite boot: a terminal comes up, says who it is and why it started, and keeps its memory within bounds."""

from __future__ import annotations

import time

from bench.boards.base import BOOT_OPTIONS, CUT_AT, EXIT_POWER_CUT, FLASH_IMAGE, HARD, POWER_ON, WATCHDOG
from bench.boards.flashmap import SECTOR_BYTES
from bench.errors import check
from bench.rig import Rig
from bench.suites.registry import Suite

SUITE = Suite("boot", "A terminal comes up, says who it is and why it started, and fits its memory.")
READY_LIMIT_MS = 3000
HEAP_FREE_BYTES = 70_000
WATCHDOG_MS = 1500


@SUITE.setup
def a_terminal_runs(rig: Rig) -> None:
    """Every case finds a terminal that runs."""
    if not rig.board.power.is_on:
        rig.terminal.boot()


@SUITE.case("a_provisioned_terminal_boots")
def a_provisioned_terminal_boots(rig: Rig) -> str:
    """Power on: the terminal announces itself and opens journal and menu."""
    terminal = rig.terminal
    started_s = time.monotonic()
    event = terminal.boot()
    check(event.data["device"] == "t-0001", f"it says it is {event.data['device']}")
    ready_s = terminal.console.events("ready")[-1].at_s - started_s
    rig.measure("power_on_to_ready", round(ready_s * 1000), "ms", f"<= {READY_LIMIT_MS}")
    return f"firmware {event.data['firmware']} on MicroPython {event.data['micropython']}"


@SUITE.case("power_on_is_its_reset_cause")
def power_on_is_its_reset_cause(rig: Rig) -> None:
    """After a power-on the reset cause is power-on and the board counts its first boot."""
    event = rig.terminal.boot()
    check(
        event.data["reset_cause"] == POWER_ON,
        f"reset cause {event.data['reset_cause']}, not {POWER_ON} (power-on)",
    )


@SUITE.case("identity_is_the_provisioned_one")
def identity_is_the_provisioned_one(rig: Rig) -> None:
    """Device, site and table are those of the provisioning record."""
    info = rig.terminal.rpc("info")
    who = rig.board.identity
    assert who is not None
    seen = (info["site"], info["device"], info["table"])
    check(seen == (who.site, who.device, who.table), f"the terminal says {seen}")


@SUITE.case("info_names_firmware_and_slot")
def info_names_firmware_and_slot(rig: Rig) -> str:
    """The terminal names its firmware version, its MicroPython and the slot it runs from."""
    info = rig.terminal.rpc("info")
    check(bool(info["firmware"]) and bool(info["micropython"]), f"incomplete: {info}")
    check(info["slot"] in ("factory", "a", "b"), f"unknown slot {info['slot']!r}")
    return f"firmware {info['firmware']}, slot {info['slot']}"


@SUITE.case("heap_after_start_is_roomy")
def heap_after_start_is_roomy(rig: Rig) -> None:
    """After start and a collection most of the heap is free."""
    heap = rig.terminal.rpc("heap")
    rig.measure("heap_free_after_start", heap["free"], "B", f">= {HEAP_FREE_BYTES}")
    rig.measure("heap_used_after_start", heap["used"], "B", "<= 92160" if rig.board.kind == "qemu" else None)


@SUITE.case("boot_counter_survives_power_cycles", features=(FLASH_IMAGE,))
def boot_counter_survives_power_cycles(rig: Rig) -> str:
    """The boot counter in flash goes up by one with each power cycle and never repeats."""
    first = rig.terminal.boot().data["boots"]
    second = rig.terminal.boot().data["boots"]
    check(second == first + 1, f"boot counter went from {first} to {second}")
    return f"{first} then {second}"


@SUITE.case("reboot_command_is_a_hard_reset")
def reboot_command_is_a_hard_reset(rig: Rig) -> None:
    """`reboot` restarts the terminal with the cause hard, and it comes back by itself."""
    console = rig.terminal.console
    since = console.mark()
    console.post("reboot")
    event = console.event("boot", since=since, over_resets=True)
    console.event("ready", since=since, over_resets=True)
    check(event.data["reset_cause"] == HARD, f"reset cause {event.data['reset_cause']}, not {HARD} (hard)")


@SUITE.case("a_hung_program_is_reset_by_the_watchdog", features=(BOOT_OPTIONS,))
def a_hung_program_is_reset_by_the_watchdog(rig: Rig) -> None:
    """A program that stops yielding is reset by the watchdog, which names itself as the cause."""
    console, options = rig.terminal.console, rig.board.boot_options
    options["watchdog_ms"] = WATCHDOG_MS
    try:
        rig.terminal.boot()
        since = console.mark()
        console.post("hang")
        event = console.event("boot", since=since, over_resets=True, deadline_s=30)
        console.event("ready", since=since, over_resets=True)
    finally:
        del options["watchdog_ms"]
        rig.board.power.off()
    check(
        event.data["reset_cause"] == WATCHDOG,
        f"reset cause {event.data['reset_cause']}, not {WATCHDOG} (watchdog)",
    )


@SUITE.case("a_power_cut_inside_a_flash_write_boots_again", features=(CUT_AT,))
def a_power_cut_inside_a_flash_write_boots_again(rig: Rig) -> None:
    """Power fails in the middle of a flash program; the next boot is whole, its counter higher."""
    terminal = rig.terminal
    before = terminal.boot().data["boots"]
    terminal.rpc("cut", n=1, keep=rig.random.randrange(1, 16), seed=0)
    terminal.console.post("order", lines=[[1, 1, []]])
    status = terminal.board.power.wait_off(20)
    check(
        status == EXIT_POWER_CUT,
        f"the board ended with {status}, not with the armed power cut ({EXIT_POWER_CUT})",
    )
    after = terminal.boot().data["boots"]
    check(after > before, f"boot counter went from {before} to {after}")


@SUITE.case("an_unprovisioned_board_says_so", features=(FLASH_IMAGE,))
def an_unprovisioned_board_says_so(rig: Rig) -> None:
    """A board with empty flash reports that it is not provisioned instead of guessing."""
    board = rig.bare_board("blank")
    try:
        board.power.on()
        error = board.console.event("error", deadline_s=20)
        check(error.data["code"] == "NOT_PROVISIONED", f"it says {error.data}")
    finally:
        board.close()


@SUITE.case("a_damaged_identity_is_refused", features=(FLASH_IMAGE,))
def a_damaged_identity_is_refused(rig: Rig) -> None:
    """A flipped bit is noticed by the CRC: in both copies of the record, the terminal does not use it."""
    flash = rig.board.flash
    assert flash is not None
    rig.board.power.off()
    good = flash.read("identity")
    bad = bytearray(good)
    for copy in (0, SECTOR_BYTES):
        bad[copy + 64] ^= 1
    flash.write("identity", bytes(bad))
    try:
        since = rig.board.console.mark()
        rig.board.power.on()
        error = rig.board.console.event("error", since=since)
        check(error.data["code"] == "IDENTITY_DAMAGED", f"it says {error.data}")
    finally:
        rig.board.power.off()
        flash.write("identity", good)
