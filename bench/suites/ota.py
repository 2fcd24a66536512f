"""Suite ota: an update arrives whole or not at all, proves itself or goes, and never costs an order.

The bundles are made of the firmware in this checkout with some modules changed (bench/releases.py) and go
through the real server. Every case begins with a terminal as delivered: factory application, no record.
"""

from __future__ import annotations

import time

from bench.boards.base import BOOT_OPTIONS, CUT_AT, EXIT_POWER_CUT, FLASH_IMAGE, INSTRET, WATCHDOG
from bench.console import Event
from bench.errors import check
from bench.faults.rules import Change, Direction, Drop, Hold
from bench.rig import Rig
from bench.suites.ota_steps import (
    CHUNKS,
    GETS,
    IMAGE,
    UPDATE_DEADLINE_S,
    Update,
    as_delivered,
    await_ota,
    await_running,
    damage,
    flash_of_control,
    flash_steps,
    install,
    make,
    publish,
    refuses,
    reported,
    runs,
    slot_files,
    text,
    withdraw_all,
)
from bench.suites.registry import Suite
from bench.suites.steps import OPS, each_committed_once, good_order_works
from bench.terminal import COMMITTED
from bench.wait import until
from server.wire.updates import WHAT_CHUNKS, OtaChunk, OtaGet

UP, DOWN = Direction.UP, Direction.DOWN
SUITE = Suite("ota", "An update arrives whole or not at all, proves itself or goes, and costs no order.")
UPDATE_LIMIT_S = 20
PADDING_BYTES = 24 * 1024
STAGING_CUTS = 9
COUNTING_TERMINAL, ICOUNT_SHIFT = 3, 3
BROKEN = "raise RuntimeError('this release is broken on purpose')\n"
HANGING = "def main(board, slot='factory'):\n    while True:\n        pass\n"
WATCHDOG_MS = 1500


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session and no update."""
    as_delivered(rig)


def padded(rig: Rig, patch: int) -> Update:
    """An update long enough to be interrupted."""
    return make(rig, patch, assets={"padding.bin": rig.random.randbytes(PADDING_BYTES)})


# ---------------------------------------------------------------- the honest way


@SUITE.case("update_installs_proves_and_reports_itself")
def update_installs_proves_and_reports_itself(rig: Rig) -> str:
    """A signed release is fetched, verified, armed, tried and confirmed without help; the server knows."""
    terminal = as_delivered(rig)
    update = make(rig, 1)
    since = terminal.console.mark()
    began_s = time.monotonic()
    install(rig, update)
    rig.measure("update_time", time.monotonic() - began_s, "s", f"<= {UPDATE_LIMIT_S}")
    told = [event.data for event in terminal.console.events("ota", since)]
    way = list(dict.fromkeys(data["state"] for data in told))
    check(
        [state for state in way if state != "confirmed"] == ["staging", "verified", "armed", "trial"],
        f"the update went {' -> '.join(way)}",
    )
    info = runs(rig, update.version, "a")
    good_order_works(rig)
    _measure_wear(rig, terminal.console.events("ota", since))
    return f"firmware {info['firmware']} from slot a, bundle of {len(update.bundle.data)} bytes"


def _measure_wear(rig: Rig, events: list[Event]) -> None:
    first = next(event for event in events if event.data["state"] == "staging")
    armed = next(event for event in events if event.data["state"] == "armed")
    confirmed = next(event for event in reversed(events) if event.data["state"] == "confirmed")
    for name, unit in (("erases", "sectors"), ("programs", "pages")):
        spent = armed.data["flash"][name] - first.data["flash"][name] + confirmed.data["flash"][name]
        rig.measure(f"flash_{name}_per_update", spent, unit)


@SUITE.case("orders_across_an_update_are_committed_once")
def orders_across_an_update_are_committed_once(rig: Rig) -> str:
    """Orders that wait while the terminal updates and restarts are committed afterwards, each once."""
    terminal = as_delivered(rig)
    swallow = rig.link.rule(UP, OPS, Drop())
    ops = [terminal.queue() for _ in range(4)]
    install(rig, make(rig, 1))
    ops.append(terminal.queue())
    check(set(ops) <= set(terminal.rpc("orders")["pending"]), "the update lost an order from the journal")
    rig.link.lift(swallow)
    terminal.rpc("drop")
    check(all(terminal.reply(op).status == COMMITTED for op in ops), "an order was not committed")
    each_committed_once(rig, ops)
    return f"{len(ops)} orders"


# ---------------------------------------------------------------- interrupted


@SUITE.case("download_goes_on_after_a_link_cut")
def download_goes_on_after_a_link_cut(rig: Rig) -> str:
    """A link cut in the middle costs the open window, not the chunks that had arrived."""
    terminal = as_delivered(rig)
    update = padded(rig, 1)
    hold = rig.link.rule(DOWN, CHUNKS, Hold(), skip=12)
    since = terminal.console.mark()
    publish(rig, update)
    rig.link.fired(hold)
    gets = rig.link.tap(UP, GETS)
    rig.link.cut()
    rig.link.clear()
    await_running(terminal, since, update)
    first = OtaGet.decode(gets.seen[0].publish.payload)
    check(first.what == WHAT_CHUNKS and first.first >= 8, f"though 11 chunks had arrived, it asked {first}")
    runs(rig, update.version, "a")
    return f"went on at chunk {first.first} of {-(-len(update.bundle.data) // 1024)}"


@SUITE.case("download_goes_on_after_a_power_cut", features=(CUT_AT,))
def download_goes_on_after_a_power_cut(rig: Rig) -> str:
    """Power fails in the middle of a download: the next start goes on where the flash says."""
    terminal = as_delivered(rig)
    update = padded(rig, 1)
    hold = rig.link.rule(DOWN, CHUNKS, Hold(), skip=18)
    since = terminal.console.mark()
    publish(rig, update)
    rig.link.fired(hold)
    terminal.board.power.off()
    rig.link.clear()
    gets = rig.link.tap(UP, GETS)
    boot = terminal.boot()
    check(boot.data["slot"] == "factory", f"an unfinished bundle runs: {boot.data}")
    await_running(terminal, since, update)
    first = OtaGet.decode(gets.seen[0].publish.payload)
    check(first.what == WHAT_CHUNKS and first.first >= 1, f"the download began anew: {first}")
    runs(rig, update.version, "a")
    return f"went on at chunk {first.first}"


@SUITE.case("power_cuts_while_staging_leave_one_whole_release", features=(CUT_AT,), deadline_s=150)
def power_cuts_while_staging_leave_one_whole_release(rig: Rig) -> str:
    """Power fails inside sampled flash steps of an update: old or new runs, whole, and new in the end."""
    terminal = as_delivered(rig)
    since = terminal.console.mark()
    old = make(rig, 1)
    install(rig, old)
    steps = staging_steps(terminal.console.events("ota", since))
    slot, fates = "a", []
    for part in range(STAGING_CUTS):
        at = rig.random.randrange(steps * part // STAGING_CUTS, steps * (part + 1) // STAGING_CUTS) + 1
        new, other = make(rig, part + 2, floor=old.version), "b" if slot == "a" else "a"
        begun = terminal.console.mark()
        arm_cut(rig, at)
        publish(rig, new)
        await_cut(rig)
        boot = terminal.boot().data
        whole = {(slot, text(old.version)), (other, text(new.version))}
        seen = (boot["slot"], boot["firmware"])
        check(seen in whole, f"cut in step {at}: runs {seen}, not one of {whole}")
        fates.append(f"{at} {'new' if boot['slot'] == other else 'old'}")
        if boot["slot"] == slot:
            await_running(terminal, begun, new)
        terminal.online()  # which confirms a release on trial
        runs(rig, new.version, other)
        old, slot = new, other
    floors = [event.data["floor"] for event in terminal.console.events("ota", since)]
    check(floors == sorted(floors), f"the version floor fell: {floors}")
    terminal.board.power.off()
    check(slot_files(rig, slot) == old.content, f"slot {slot} does not hold exactly the last release")
    return f"cuts in steps {', '.join(fates)} of about {steps}"


@SUITE.case("power_cuts_while_confirming_keep_the_release", features=(CUT_AT,), deadline_s=90)
def power_cuts_while_confirming_keep_the_release(rig: Rig) -> str:
    """Power fails in each flash step of confirming a trial: the release stays, and is confirmed."""
    terminal = as_delivered(rig)
    slots = ("a", "b", "a")
    for step, slot in enumerate(slots, 1):
        new = make(rig, step)
        since = terminal.console.mark()
        publish(rig, new)
        await_ota(terminal, since, state="armed")
        rig.link.refuse()
        await_ota(terminal, since, state="trial")
        arm_cut(rig, step)
        rig.link.clear()
        await_cut(rig)
        boot = terminal.boot().data
        check(
            (boot["slot"], boot["firmware"]) == (slot, text(new.version)), f"cut in step {step}: runs {boot}"
        )
        terminal.online()
        runs(rig, new.version, slot)
    good_order_works(rig)
    return f"cuts in steps 1 to {len(slots)} of a trial"


def staging_steps(events: list[Event]) -> int:
    """Flash steps of an update up to arming it, less what the first one spends on a new file system."""
    first = next(event for event in events if event.data["state"] == "staging")
    armed = next(event for event in events if event.data["state"] == "armed")
    return (flash_steps(armed) - flash_steps(first)) * 4 // 5


def arm_cut(rig: Rig, step: int) -> None:
    """Let the power fail inside the n-th flash step from now, with a random part of that step done."""
    keep, seed = rig.random.randrange(-1, 200), rig.random.randrange(2**16)
    rig.terminal.rpc("cut", n=step, keep=keep, seed=seed)


def await_cut(rig: Rig) -> None:
    """Wait for the armed power cut."""
    status = rig.board.power.wait_off(UPDATE_DEADLINE_S)
    check(status == EXIT_POWER_CUT, f"the board ended with {status}, not with the armed power cut")


# ---------------------------------------------------------------- damaged on the way


@SUITE.case("changed_chunk_is_fetched_again")
def changed_chunk_is_fetched_again(rig: Rig) -> None:
    """A chunk changed on its way is refused by its hash and asked for again."""
    terminal = as_delivered(rig)
    update = padded(rig, 1)
    rule = rig.link.rule(DOWN, CHUNKS, Change(spoil), skip=4, times=2)
    since = terminal.console.mark()
    publish(rig, update)
    rig.link.fired(rule, 2)
    await_running(terminal, since, update)
    runs(rig, update.version, "a")
    terminal.board.power.off()
    check(slot_files(rig, "a") == update.content, "the installed bytes are not the bundle's")


@SUITE.case("bundle_of_wrong_bytes_is_given_up")
def bundle_of_wrong_bytes_is_given_up(rig: Rig) -> None:
    """A server that never sends the right bytes is given up, by name; the terminal goes on working."""
    terminal = as_delivered(rig)
    rig.link.rule(DOWN, CHUNKS, Change(spoil), skip=1)
    since = terminal.console.mark()
    publish(rig, padded(rig, 1))
    await_ota(terminal, since, state="confirmed", reason="bad-bytes")
    withdraw_all(rig)
    rig.link.clear()
    runs(rig, IMAGE, "factory")
    good_order_works(rig)


def spoil(frame: bytes) -> bytes:
    """An ota-chunk with one bit of its data changed."""
    chunk = OtaChunk.decode(frame)
    data = bytes([chunk.data[0] ^ 0x10]) + chunk.data[1:]
    return OtaChunk(chunk.ref, chunk.what, chunk.index, data).encode()


# ---------------------------------------------------------------- broken releases


@SUITE.case("broken_release_rolls_back_and_a_good_one_follows")
def broken_release_rolls_back_and_a_good_one_follows(rig: Rig) -> str:
    """A release that dies at its start is tried three times and costs no order; a good one follows."""
    terminal = as_delivered(rig)
    swallow = rig.link.rule(UP, OPS, Drop())
    ops = [terminal.queue() for _ in range(3)]
    broken = make(rig, 1, changed={"terminal.app": BROKEN})
    begun = len(terminal.console.transcript)
    since = terminal.console.mark()
    publish(rig, broken)
    await_ota(terminal, since, state="rolled-back", reason="tries-spent")
    tries = terminal.console.transcript[begun:].count("RuntimeError: this release is broken on purpose")
    check(tries == 3, f"the broken release was started {tries} times")
    terminal.online()
    runs(rig, IMAGE, "factory")
    record = flash_of_control(rig)
    refuses(rig, broken.bundle.offer.encode(), "quarantined")
    rig.link.lift(swallow)
    terminal.rpc("drop")
    check(all(terminal.reply(op).status == COMMITTED for op in ops), "an order was not committed")
    each_committed_once(rig, ops)
    check(flash_of_control(rig) == record, "the quarantined release was staged again")
    good = make(rig, 2)
    install(rig, good)
    runs(rig, good.version, "a")
    return f"{tries} tries, then {text(good.version)}"


@SUITE.case("hanging_release_is_ended_by_the_watchdog", features=(BOOT_OPTIONS,))
def hanging_release_is_ended_by_the_watchdog(rig: Rig) -> None:
    """A release that hangs at its start is ended by the watchdog and rolled back."""
    terminal = as_delivered(rig)
    hanging = make(rig, 1, changed={"terminal.app": HANGING})
    terminal.board.boot_options["watchdog_ms"] = WATCHDOG_MS
    try:
        terminal.boot()
        since = terminal.console.mark()
        publish(rig, hanging)
        await_ota(terminal, since, state="rolled-back", reason="tries-spent")
        boot = terminal.console.events("boot", since)[-1].data
        check(
            boot["reset_cause"] == WATCHDOG, f"the last restart was {boot['reset_cause']}, not a watchdog's"
        )
        withdraw_all(rig)
    finally:
        del terminal.board.boot_options["watchdog_ms"]
        terminal.board.power.off()


@SUITE.case("release_under_a_false_number_rolls_back")
def release_under_a_false_number_rolls_back(rig: Rig) -> None:
    """A release whose application calls itself by another number than its manifest is not confirmed."""
    terminal = as_delivered(rig)
    since = terminal.console.mark()
    publish(rig, make(rig, 1, named=IMAGE + 5))
    await_ota(terminal, since, state="rolled-back", reason="bad-manifest")
    withdraw_all(rig)
    terminal.online()
    runs(rig, IMAGE, "factory")


# ---------------------------------------------------------------- two slots


def two_releases(rig: Rig) -> tuple[Update, Update]:
    """The first release in slot a, the second, running, in slot b; the terminal is off, nothing on offer."""
    terminal = as_delivered(rig)
    first, second = make(rig, 1), make(rig, 2)
    install(rig, first)
    install(rig, second)
    runs(rig, second.version, "b")
    withdraw_all(rig)
    terminal.board.power.off()
    check(slot_files(rig, "a") == first.content, "slot a no longer holds exactly the first release")
    check(slot_files(rig, "b") == second.content, "slot b does not hold exactly the second release")
    return first, second


@SUITE.case("damaged_slots_fall_back_and_say_so", features=(FLASH_IMAGE,))
def damaged_slots_fall_back_and_say_so(rig: Rig) -> str:
    """One damaged slot: the release before it runs. Both: the factory application runs, and says so."""
    terminal = rig.terminal
    first, second = two_releases(rig)
    damage(rig, "b")
    boot = terminal.boot().data
    check((boot["slot"], boot["firmware"]) == ("a", text(first.version)), f"it runs {boot}")
    terminal.board.power.off()
    damage(rig, "a")
    since = terminal.console.mark()
    boot = terminal.boot().data
    check((boot["slot"], boot["firmware"]) == ("factory", text(IMAGE)), f"it runs {boot}")
    check("[loader] confirmed: both-bad" in terminal.console.transcript, "the loader does not say why")
    await_ota(terminal, since, state="confirmed", reason="both-bad")
    terminal.online()
    good_order_works(rig)
    until(lambda: reported(rig) == (IMAGE, "factory"), "the server knows that the factory application runs")
    third = make(rig, 3)
    install(rig, third)
    runs(rig, third.version, "a")
    return f"{text(second.version)} -> {text(first.version)} -> factory -> {text(third.version)}"


# ---------------------------------------------------------------- what it costs


@SUITE.case("instructions_of_an_update", features=(INSTRET,), deadline_s=120)
def instructions_of_an_update(rig: Rig) -> str:
    """What judging an offer and installing a small bundle cost, in exact instructions of an emulated core."""
    withdraw_all(rig)
    update = make(rig, 1)
    rig.terminal.board.power.off()
    terminal = rig.terminal_number(COUNTING_TERMINAL, ICOUNT_SHIFT)
    terminal.online(90)
    before = int(terminal.rpc("mark")["instret"])
    since = terminal.console.mark()
    publish(rig, update)
    staging = await_ota(terminal, since, state="staging").data["instret"]
    armed = await_ota(terminal, since, state="armed").data["instret"]
    await_running(terminal, since, update)
    withdraw_all(rig)
    terminal.board.power.off()
    assert terminal.board.flash is not None
    terminal.board.flash.erase("control")
    note = f"bundle of {len(update.bundle.data)} bytes; what else ran meanwhile is counted with it"
    rig.measure("ota_offer_instructions", staging - before, "instructions", note=note)
    rig.measure("ota_install_instructions", armed - staging, "instructions", note=note)
    return f"{staging - before:,} for the offer, {armed - staging:,} to install"


@SUITE.case("the_factory_application_is_back", features=(FLASH_IMAGE,))
def the_factory_application_is_back(rig: Rig) -> None:
    """With its control record erased the terminal runs the factory application, orders and all."""
    info = as_delivered(rig).rpc("info")
    check((info["firmware"], info["slot"]) == (text(IMAGE), "factory"), f"it runs {info}")
    good_order_works(rig)
