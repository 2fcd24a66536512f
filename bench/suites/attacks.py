"""Suite attacks: updates from a malicious server, a malicious release store, or a thief of keys.

One case or more for every row of the table in docs/ota.md, under the names given there. Forged frames come
over the hostile link; everything behind it is the real server. The cases that retire the release key stand
last: a terminal does not go back.
"""

from __future__ import annotations

from dataclasses import replace

from bench import releases
from bench.boards.base import FLASH_IMAGE
from bench.errors import check
from bench.faults.rules import Change, Delay, Direction, Drop, Hold
from bench.rig import Rig
from bench.suites.attack_steps import (
    FRESH,
    NEW_EPOCH,
    OFFERS,
    OLD_EPOCH,
    Forestall,
    OwnedServer,
    borrowing,
    claimed,
    named,
    padded,
    reference,
    renamed,
    rotation,
    signed_in,
    tell,
    unnamed,
    without_key,
)
from bench.suites.forging import ClaimingSigner, fixture_signer
from bench.suites.ota_steps import (
    CHUNKS,
    HARDWARE,
    IMAGE,
    as_delivered,
    await_ota,
    await_running,
    damage,
    install,
    make,
    publish,
    refuses,
    runs,
    signed_by_another,
    target,
    withdraw_all,
)
from bench.suites.registry import Suite
from bench.suites.steps import good_order_works
from bench.terminal import COMMITTED
from server.releases.images import IMAGE_FILE, image_file
from server.wire.updates import WHAT_CHUNKS, WHAT_HASHES, OtaChunk

UP, DOWN = Direction.UP, Direction.DOWN
SUITE = Suite(
    "attacks", "No update comes from anybody but the release key, and none a terminal is not meant to run."
)
ENDLESS = 300
ORDER_LIMIT_MS = 1000
ORDER_PROGRAMS = 40  # of the flash, by two orders and their answers
TRUST = "terminal/trust.mpy"
STARTS_UNTIL_NOTICED = 5


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session and no update."""
    as_delivered(rig)


# ---------------------------------------------------------------- whose software?


@SUITE.case("manifest_by_another_key_is_refused", threat="arbitrary software")
def manifest_by_another_key_is_refused(rig: Rig) -> None:
    """A manifest signed by any key but the certified one changes nothing, even under that one's name."""
    as_delivered(rig)
    update = make(rig, 1)
    refuses(rig, signed_by_another(update), "bad-signature")
    refuses(rig, claimed(update), "bad-signature")


@SUITE.case("certificate_by_another_root_is_refused", threat="arbitrary software")
def certificate_by_another_root_is_refused(rig: Rig) -> None:
    """A release key certified by another root changes nothing, though its signature is right."""
    as_delivered(rig)
    update = make(rig, 1)
    wanted = target(HARDWARE[rig.board.kind], update.version)
    forged = releases.bundle(wanted, update.content, signer="release", certifier="evil-root")
    refuses(rig, forged.offer.encode(), "bad-signature")


@SUITE.case("release_below_the_floor_is_refused", threat="rollback")
def release_below_the_floor_is_refused(rig: Rig) -> None:
    """A genuine older release is refused once a confirmed one has raised the floor; so is the running one."""
    as_delivered(rig)
    older = make(rig, 1)
    update = make(rig, 3, floor=IMAGE + 2)
    install(rig, update)
    refuses(rig, older.bundle.offer.encode(), "below-floor")
    refuses(rig, update.bundle.offer.encode(), "already-there")
    runs(rig, update.version, "a")


# ---------------------------------------------------------------- now, and for me?


@SUITE.case("offer_the_server_does_not_name_is_stale", threat="freeze")
def offer_the_server_does_not_name_is_stale(rig: Rig) -> None:
    """A genuine release that the server, when asked, does not name is not installed: somebody replays it."""
    as_delivered(rig)
    refuses(rig, make(rig, 1).bundle.offer.encode(), "stale-offer")
    good_order_works(rig)


@SUITE.case("recorded_answer_names_no_release", threat="freeze")
def recorded_answer_names_no_release(rig: Rig) -> None:
    """An answer recorded before, replayed in the same session ahead of today's, installs nothing."""
    terminal = as_delivered(rig)
    wanted, other = make(rig, 1), make(rig, 2)
    rig.link.rule(DOWN, OFFERS, Drop())
    publish(rig, wanted)
    answers = rig.link.tap(DOWN, FRESH)
    for start in range(1, STARTS_UNTIL_NOTICED + 1):  # the server looks for what was published now and then
        terminal.boot()  # which asks, once there is a session
        recorded = answers.wait(start)[-1].publish.payload
        terminal.online()
        if named(recorded):
            break
    check(named(recorded) == reference(wanted), "the server did not name what was published")
    withdraw_all(rig)
    while named(
        answers.seen[-1].publish.payload
    ):  # until the server has noticed, each question spends a nonce
        refuses(rig, other.bundle.offer.encode(), "stale-offer")
    rig.link.rule(DOWN, FRESH, Forestall(lambda today: recorded))
    refuses(rig, wanted.bundle.offer.encode(), "stale-offer")


@SUITE.case("forged_answer_names_no_release", threat="freeze")
def forged_answer_names_no_release(rig: Rig) -> None:
    """An answer with the right nonce, made without the session's key, installs nothing."""
    as_delivered(rig)
    update = make(rig, 1)
    rig.link.rule(DOWN, FRESH, Forestall(without_key(reference(update))))
    refuses(rig, update.bundle.offer.encode(), "stale-offer")


@SUITE.case("bundle_for_other_hardware_is_refused", threat="wrong target")
def bundle_for_other_hardware_is_refused(rig: Rig) -> None:
    """A genuine bundle for another hardware class, or another site, changes nothing."""
    as_delivered(rig)
    update = make(rig, 1)
    own = target(HARDWARE[rig.board.kind], update.version)
    for other in (replace(own, hardware="esp32"), replace(own, group="elsewhere")):
        refuses(rig, releases.bundle(other, update.content).offer.encode(), "wrong-target")


@SUITE.case("bundle_over_another_image_is_refused", threat="wrong precursor")
def bundle_over_another_image_is_refused(rig: Rig) -> None:
    """A genuine bundle over another image, by number or by digest alone, or over none, changes nothing."""
    as_delivered(rig)
    update = make(rig, 1)
    for image in (IMAGE + 1, IMAGE - 1):
        wanted = target(HARDWARE[rig.board.kind], update.version, image=image)
        refuses(rig, releases.bundle(wanted, update.content).offer.encode(), "wrong-target")
    another = rig.random.randbytes(32)
    over = make(rig, 1, assets={IMAGE_FILE.removeprefix("assets/"): image_file(another)})
    refuses(rig, over.bundle.offer.encode(), "wrong-image")
    refuses(rig, unnamed(update), "wrong-image")
    good_order_works(rig)


# ---------------------------------------------------------------- which bytes, and how many?


@SUITE.case("chunks_of_two_releases_do_not_mix", threat="mix-and-match")
def chunks_of_two_releases_do_not_mix(rig: Rig) -> None:
    """Chunks, chunk hashes or both of one genuine release, served as another's, end the download by name."""
    terminal = as_delivered(rig)
    lender = padded(rig, 2).bundle
    mixtures = ((WHAT_CHUNKS,), (WHAT_HASHES,), (WHAT_CHUNKS, WHAT_HASHES))
    for patch, whats in enumerate(mixtures, start=3):
        rule = rig.link.rule(DOWN, CHUNKS, Change(borrowing(lender, *whats)))
        since = terminal.console.mark()
        publish(rig, padded(rig, patch))
        await_ota(terminal, since, state="confirmed", reason="bad-bytes")
        withdraw_all(rig)
        rig.link.lift(rule)
    runs(rig, IMAGE, "factory")
    good_order_works(rig)


@SUITE.case("endless_data_fills_nothing", threat="endless data")
def endless_data_fills_nothing(rig: Rig) -> str:
    """Hundreds of chunks beyond the end and frames too large are not stored; orders and update go on."""
    terminal = as_delivered(rig)
    update = padded(rig, 1)
    hold = Hold()
    held = rig.link.rule(DOWN, CHUNKS, hold, skip=4)
    since = terminal.console.mark()
    publish(rig, update)
    rig.link.fired(held)
    check(terminal.order().status == COMMITTED, "an order was not committed")
    before = terminal.rpc("stats")
    chunks = -(-len(update.bundle.data) // update.bundle.manifest.chunk_size)
    for number in range(ENDLESS):
        what = WHAT_HASHES if number % 3 == 0 else WHAT_CHUNKS
        data = rig.random.randbytes(1024)
        tell(rig, "chunk", OtaChunk(reference(update), what, chunks + number, data).encode())
    tell(rig, "chunk", rig.random.randbytes(100_000))
    check(terminal.order().status == COMMITTED, "an order was not committed")
    after = terminal.rpc("stats")
    check(after["mqtt"]["oversized"] > before["mqtt"]["oversized"], "the frame that is too large went unseen")
    programs = after["flash"]["programs"] - before["flash"]["programs"]
    check(programs <= ORDER_PROGRAMS, f"{ENDLESS} endless chunks cost {programs} programs of the flash")
    rig.link.lift(held)
    rig.link.release(hold, DOWN, "t-0001")
    await_running(terminal, since, update)
    terminal.online()
    runs(rig, update.version, "a")
    return f"{ENDLESS} chunks, {programs} programs of the flash, all of them orders'"


@SUITE.case("slow_server_delays_no_order", threat="slow retrieval")
def slow_server_delays_no_order(rig: Rig) -> str:
    """While a server hands out chunks two a second, orders are answered at once; the update still arrives."""
    terminal = as_delivered(rig)
    update = padded(rig, 1)
    slow = rig.link.rule(DOWN, CHUNKS, Delay(0.5), skip=1, times=4)
    since = terminal.console.mark()
    publish(rig, update)
    took_ms = []
    for count in range(1, 4):
        rig.link.fired(slow, count)
        took_ms.append(terminal.order().ms)
    check(max(took_ms) <= ORDER_LIMIT_MS, f"an order waited {max(took_ms):.0f} ms behind a slow download")
    await_running(terminal, since, update)
    terminal.online()
    runs(rig, update.version, "a")
    return f"slowest order {max(took_ms):.0f} ms"


@SUITE.case("bytes_changed_after_the_check_do_not_run", features=(FLASH_IMAGE,), threat="change after verify")
def bytes_changed_after_the_check_do_not_run(rig: Rig) -> None:
    """A release that was verified, and changed in flash before it starts again, is rolled back by name."""
    terminal = as_delivered(rig)
    update = make(rig, 1)
    since = terminal.console.mark()
    publish(rig, update)
    await_ota(terminal, since, state="armed")
    rig.link.refuse()
    await_ota(terminal, since, state="trial")
    terminal.board.power.off()
    damage(rig, "a")
    rig.link.clear()
    withdraw_all(rig)
    since = terminal.console.mark()
    boot = terminal.boot().data
    check(boot["slot"] == "factory", f"changed bytes run: {boot}")
    await_ota(terminal, since, reason="slot-bad")
    terminal.online()
    runs(rig, IMAGE, "factory")


# ---------------------------------------------------------------- an owned server


@SUITE.case("owned_server_installs_nothing_unsigned", threat="online server owned")
def owned_server_installs_nothing_unsigned(rig: Rig) -> None:
    """With every session's keys a thief can choose among signed releases above the floor, nothing else."""
    as_delivered(rig)
    older, old, chosen = make(rig, 1), make(rig, 2, floor=IMAGE + 2), make(rig, 3)
    install(rig, old)
    withdraw_all(rig)
    publish(rig, chosen, percent=0)  # signed, stored, and for nobody yet
    thief = OwnedServer(rig)
    forged = ClaimingSigner(fixture_signer("evil-root"), fixture_signer("release").kid)
    frame = replace(chosen.bundle.offer, manifest_frame=chosen.bundle.manifest.seal(forged)).encode()
    thief.naming = reference(chosen)
    refuses(rig, frame, "bad-signature")
    thief.naming = reference(older)
    refuses(rig, older.bundle.offer.encode(), "below-floor")
    refuses(rig, chosen.bundle.offer.encode(), "stale-offer")  # not what the thief names
    thief.naming = reference(chosen)
    since = rig.terminal.console.mark()
    tell(rig, "offer", chosen.bundle.offer.encode())
    await_running(rig.terminal, since, chosen)
    rig.terminal.online()
    runs(rig, chosen.version, "b")


# ---------------------------------------------------------------- stolen and retired release keys


@SUITE.case("bundle_cannot_bring_its_own_root", threat="key compromise and rotation")
def bundle_cannot_bring_its_own_root(rig: Rig) -> None:
    """Even the release key's thief cannot replace the root key, or write outside the application."""
    as_delivered(rig)
    update = make(rig, 1)
    for path in (TRUST, "board.mpy", "terminal/.hidden.py"):
        refuses(rig, renamed(update, path), "bad-manifest")


@SUITE.case("new_release_key_needs_the_old_ones_word", threat="key compromise and rotation")
def new_release_key_needs_the_old_ones_word(rig: Rig) -> None:
    """A terminal that knows a release key takes no other from the root alone, nor a half-signed rotation."""
    as_delivered(rig)
    install(rig, make(rig, 1))
    withdraw_all(rig)
    known, successor = signed_in(rig, 2, OLD_EPOCH), signed_in(rig, 2, NEW_EPOCH)
    refuses(rig, successor.bundle.offer.encode(), "old-release-key")
    honest = rotation()
    for lie in (
        replace(honest, by_old=honest.by_new),
        replace(honest, by_new=honest.by_old),
        replace(honest, by_old=honest.by_old[:-1] + bytes([honest.by_old[-1] ^ 1])),
    ):
        tell(rig, "rotation", lie.encode())
        refuses(rig, known.bundle.offer.encode(), "stale-offer")  # which is as far as the known key gets
        refuses(rig, successor.bundle.offer.encode(), "old-release-key")


@SUITE.case("retired_release_key_signs_nothing_more", threat="key compromise and rotation")
def retired_release_key_signs_nothing_more(rig: Rig) -> None:
    """After a rotation the retired key's signature installs nothing; the new key's does."""
    as_delivered(rig)
    install(rig, make(rig, 1))
    withdraw_all(rig)
    tell(rig, "rotation", rotation().encode())
    refuses(rig, signed_in(rig, 3, OLD_EPOCH).bundle.offer.encode(), "old-release-key")
    successor = signed_in(rig, 4, NEW_EPOCH)
    install(rig, successor)
    runs(rig, successor.version, "b")
