"""Suite menu: the guest always sees one whole, signed menu, with or without a network.

The server publishes editions that differ in nearly every price (menu_steps.py), so a mixture would show.
"""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256

from bench.boards.base import CUT_AT, EXIT_POWER_CUT, FLASH_IMAGE
from bench.errors import RpcRefused, check
from bench.faults.mqtt import Publish
from bench.faults.rules import Change, Direction, Hold
from bench.rig import Rig
from bench.suites.menu_steps import (
    FLAT_WHITE_ID,
    MENU_CHUNKS,
    RIB_EYE_ID,
    Edition,
    announced,
    announcing,
    await_edition,
    await_version,
    chunk_change,
    empty_file_system,
    evil_menu,
    fill_file_system,
    keeps,
    offline,
    publish,
    publish_demo,
    release_to_the_end,
    shown,
    update,
)
from bench.suites.registry import Suite
from bench.suites.steps import (
    BEACONS,
    COLA_ID,
    await_terminal_refusals,
    committed_once,
    each_committed_once,
    good_order_works,
    order_count,
    orders_of,
    terminal_refusals,
)
from bench.terminal import COMMITTED, REJECTED, REPRICE, SOLD_OUT, Reply
from bench.wait import until
from server.wire.menus import MenuChunk, split
from server.wire.ops import RejectCode

UP, DOWN = Direction.UP, Direction.DOWN
SUITE = Suite("menu", "The guest always sees one whole, signed menu, with or without a network.")
ARRIVAL_LIMIT_MS = 5000
POWER_CUTS = 6
ENDLESS_CHUNKS = 150
RARE = 121  # a modifier of the required group "doneness"


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session and the menu of the day."""
    rig.terminal.online()


def holding_chunks(rig: Rig, count: int, skip: int = 0) -> tuple[Hold, Edition]:
    """Publish an edition and keep chunks of it back at the link, after the first `skip`."""
    hold = Hold()
    rule = rig.link.rule(DOWN, MENU_CHUNKS, hold, skip=skip)
    edition = publish(rig)
    rig.link.fired(rule, count)
    return hold, edition


def chunk_count(rig: Rig) -> int:
    """How many chunks the published menu has."""
    topic = f"s/{rig.options.site}/menu/"
    seen = [c.publish.payload for c in rig.link.captures if c.publish.topic.startswith(topic)]
    return MenuChunk.decode(seen[-1]).count


# ---------------------------------------------------------------- without a network


@SUITE.case("menu_survives_a_reboot")
def menu_survives_a_reboot(rig: Rig) -> str:
    """After a restart without any network the terminal shows the same menu, item by item."""
    terminal = rig.terminal
    edition = update(rig)
    offline(rig)
    since = terminal.console.mark()
    terminal.console.post("reboot")
    terminal.console.event("ready", since=since, over_resets=True)
    keeps(terminal, edition)
    return f"menu {edition.version}, {len(edition.prices)} items"


@SUITE.case("menu_survives_a_power_cut")
def menu_survives_a_power_cut(rig: Rig) -> None:
    """After pulling the plug, and without any network, the terminal shows the same menu."""
    rig.terminal.online()
    edition = shown(rig.terminal)
    rig.link.refuse()
    rig.terminal.boot()
    keeps(rig.terminal, edition)


@SUITE.case("orders_from_the_cached_menu_are_committed_later")
def orders_from_the_cached_menu_are_committed_later(rig: Rig) -> str:
    """Orders taken without a network, some before and some after a power cut, are each committed once."""
    terminal = rig.terminal
    terminal.online()
    offline(rig)
    ops = [terminal.queue(), terminal.queue([(FLAT_WHITE_ID, 2, (101,))])]
    terminal.boot()
    ops.append(terminal.queue())
    check(len(terminal.rpc("orders")["pending"]) == 3, "not all three orders wait in the terminal")
    check(not orders_of(rig, ops), "an order reached the server over a link that is shut")
    rig.link.clear()
    replies = [terminal.reply(op) for op in ops]
    check(all(reply.status == COMMITTED for reply in replies), f"answered {replies}")
    each_committed_once(rig, ops)
    return ", ".join(f"order {reply.order}" for reply in replies)


# ---------------------------------------------------------------- a new menu


@SUITE.case("published_menu_arrives_by_itself")
def published_menu_arrives_by_itself(rig: Rig) -> str:
    """A menu published while guests order is on the screen soon, and orders at its prices are committed."""
    terminal = rig.terminal
    terminal.online()
    began_s = time.monotonic()
    edition = publish(rig)
    await_version(terminal, edition.version)
    rig.measure(
        "published_to_shown", round((time.monotonic() - began_s) * 1000), "ms", f"<= {ARRIVAL_LIMIT_MS}"
    )
    await_edition(terminal, edition)
    committed_once(rig, terminal.order([(FLAT_WHITE_ID, 1, ())]), edition.prices[FLAT_WHITE_ID])
    return f"menu {edition.version}"


@SUITE.case("menu_published_while_offline_is_fetched_on_reconnect")
def menu_published_while_offline_is_fetched_on_reconnect(rig: Rig) -> None:
    """A menu published while the terminal is cut off reaches it when the link is back, the newest only."""
    rig.terminal.online()
    offline(rig)
    missed = publish(rig)
    newest = publish(rig)
    announced(rig, newest)
    rig.link.clear()
    await_edition(rig.terminal, newest)
    versions = [event.data["version"] for event in rig.terminal.console.events("menu")]
    check(missed.version not in versions, "the terminal fetched a menu that was no longer the newest")
    good_order_works(rig)


@SUITE.case("changed_price_is_answered_reprice")
def changed_price_is_answered_reprice(rig: Rig) -> str:
    """An order at yesterday's price is answered REPRICE and not sold; after the update it goes through."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    before = order_count(rig)
    hold, new = holding_chunks(rig, 1)
    lines = [(FLAT_WHITE_ID, 2, ())]
    reply = terminal.order(lines)
    total = 2 * new.prices[FLAT_WHITE_ID]
    check(total != 2 * old.prices[FLAT_WHITE_ID], "the two editions cost the same")
    check(
        (reply.status, reply.arg, reply.total_minor) == (REPRICE, new.version, total),
        f"answered {reply}, not REPRICE to {total} with menu {new.version}",
    )
    check("prices have changed" in str(answer_text(rig, reply)), "the guest is not told that prices changed")
    check(order_count(rig) == before, "a repriced order is in the ledger")
    rig.link.clear()
    rig.link.release(hold, DOWN, "t-0001")
    await_edition(terminal, new)
    committed_once(rig, terminal.order(lines), total)
    return f"{2 * old.prices[FLAT_WHITE_ID]} became {total}"


def answer_text(rig: Rig, reply: Reply) -> object:
    """What the guest reads under the order."""
    orders = rig.terminal.rpc("screen")["screen"]["orders"]
    return next((order["text"] for order in orders if order["op"] == reply.op), None)


@SUITE.case("order_on_the_old_menu_at_the_same_price_is_taken")
def order_on_the_old_menu_at_the_same_price_is_taken(rig: Rig) -> None:
    """A new menu does not disturb an order whose price it leaves as it was."""
    rig.terminal.online()
    hold, new = holding_chunks(rig, 1)
    committed_once(rig, rig.terminal.order())
    rig.link.clear()
    rig.link.release(hold, DOWN, "t-0001")
    await_edition(rig.terminal, new)


# ---------------------------------------------------------------- a hostile link


@SUITE.case("older_menu_is_refused")
def older_menu_is_refused(rig: Rig) -> None:
    """Chunks of an older, genuine menu are not taken for the new one, under their own number or its."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    old = update(rig)
    tap = [c.publish for c in link.captures if c.publish.topic.startswith(f"s/{rig.options.site}/menu/")]
    chunks = {
        chunk.index: chunk
        for chunk in (MenuChunk.decode(publish.payload) for publish in tap)
        if chunk.version == old.version
    }
    refused = terminal_refusals(terminal)
    rule = link.rule(
        DOWN, MENU_CHUNKS, Change(chunk_change(lambda c: replace(chunks[c.index], version=c.version)))
    )
    new = publish(rig)
    link.fired(rule, len(chunks))
    for chunk in chunks.values():
        link.inject(DOWN, Publish(f"s/{rig.options.site}/menu/{chunk.index}", chunk.encode()), "t-0001")
    await_terminal_refusals(terminal, refused)
    keeps(terminal, old)
    link.clear()
    await_edition(terminal, new)


@SUITE.case("torn_download_goes_on_after_the_cut")
def torn_download_goes_on_after_the_cut(rig: Rig) -> None:
    """A link cut in the middle of a download leaves the old menu usable; reconnected, the rest is fetched."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    _, new = holding_chunks(rig, 1, skip=2)
    keeps(terminal, old)
    rig.link.refuse()
    op = terminal.queue()
    keeps(terminal, old)
    rig.link.clear()
    await_edition(terminal, new)
    committed_once(rig, terminal.reply(op))


@SUITE.case("corrupted_chunk_is_never_mixed_in")
def corrupted_chunk_is_never_mixed_in(rig: Rig) -> None:
    """One byte changed in one chunk: the whole download is refused, and fetched again without help."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    refused = terminal_refusals(terminal)
    spoil = chunk_change(lambda c: replace(c, data=c.data[:-1] + bytes([c.data[-1] ^ 1])))
    # Every copy of it, because a chunk that comes twice is kept from whichever copy was first.
    rule = rig.link.rule(DOWN, "s/+/menu/1", Change(spoil))
    new = publish(rig)
    rig.link.fired(rule)
    await_terminal_refusals(terminal, refused)
    keeps(terminal, old)
    rig.link.lift(rule)
    await_edition(terminal, new)


@SUITE.case("menu_with_a_missing_chunk_is_not_used")
def menu_with_a_missing_chunk_is_not_used(rig: Rig) -> str:
    """As long as one chunk is missing the old menu stays; with it the new one is used."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    count = chunk_count(rig)
    missing = rig.random.randrange(count)
    hold = Hold()
    rule = rig.link.rule(DOWN, f"s/+/menu/{missing}", hold)
    rest = rig.link.tap(DOWN, MENU_CHUNKS)
    new = publish(rig)
    rig.link.fired(rule)
    rest.wait(count)
    keeps(terminal, old, 0.3)
    rig.link.clear()
    rig.link.release(hold, DOWN, "t-0001")
    await_edition(terminal, new)
    return f"without chunk {missing} of {count}"


@SUITE.case("strange_chunks_are_refused")
def strange_chunks_are_refused(rig: Rig) -> str:
    """Oversized, misplaced and endless chunks are counted and dropped; the true ones among them suffice."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    old = shown(terminal)
    refused = terminal_refusals(terminal)
    hold, new = holding_chunks(rig, chunk_count(rig))
    genuine = [MenuChunk.decode(publish.payload) for publish in hold.held]
    first = genuine[0]
    strange = [
        replace(first, data=bytes(1025)),
        replace(first, data=bytes(30_000)),
        replace(first, count=65, index=64),
        replace(first, index=first.count),
    ]
    strange += [replace(first, index=first.count + n % 60) for n in range(ENDLESS_CHUNKS)]
    for chunk in strange:
        link.inject(DOWN, Publish(f"s/{rig.options.site}/menu/0", chunk.encode(), qos=0), "t-0001")

    def counted() -> int:
        return terminal_refusals(terminal) - refused + int(terminal.rpc("stats")["mqtt"]["oversized"])

    # All of them, while the download is still open: afterwards chunks are not looked at.
    until(lambda: counted() >= len(strange), f"{len(strange)} strange chunks refused by the terminal")
    keeps(terminal, old)
    heap = int(terminal.rpc("heap")["free"])
    link.clear()
    link.release(hold, DOWN, "t-0001")
    await_edition(terminal, new)
    return f"{len(strange)} strange chunks, {heap} bytes of heap free among them"


@SUITE.case("menu_signed_by_another_key_is_refused")
def menu_signed_by_another_key_is_refused(rig: Rig) -> None:
    """A menu of the announced number and hash, but signed by another key, is not stored."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    old = update(rig)
    frame = evil_menu(rig, old.version + 1)
    evil = {chunk.index: chunk for chunk in split(frame, old.version + 1)}
    link.rule(DOWN, BEACONS, Change(announcing(rig, sha256(frame).digest())))
    fetched = link.rule(DOWN, MENU_CHUNKS, Change(chunk_change(lambda c: evil.get(c.index, c))))
    since = terminal.console.mark()
    publish(rig)
    link.fired(fetched, len(evil))
    terminal.console.event("error", since=since, where=lambda data: data["code"] == "MENU_SIGNATURE")
    keeps(terminal, old)
    link.clear()
    await_edition(terminal, publish(rig))
    good_order_works(rig)


# ---------------------------------------------------------------- storage


@SUITE.case("full_file_system_keeps_the_old_menu", features=(FLASH_IMAGE,))
def full_file_system_keeps_the_old_menu(rig: Rig) -> str:
    """Without room for the new menu the old one stays and guests order; with room again the new one comes."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    since = terminal.console.mark()
    terminal.board.power.off()
    taken = fill_file_system(rig)
    try:
        terminal.boot()
        new = publish(rig)
        terminal.console.event("error", since=since, where=lambda data: data["code"] == "MENU_NO_SPACE")
        terminal.online()
        keeps(terminal, old)
        committed_once(rig, terminal.order())
    finally:
        terminal.board.power.off()
        empty_file_system(rig)
    terminal.boot()
    keeps(terminal, old)
    await_edition(terminal, new)
    return f"{taken >> 10} KiB in the way"


@SUITE.case("power_cut_during_replacement_leaves_one_whole_menu", features=(CUT_AT,))
def power_cut_during_replacement_leaves_one_whole_menu(rig: Rig) -> str:
    """Power fails inside sampled flash steps of a replacement: the next start shows all old or all new."""
    terminal = rig.terminal
    terminal.online()
    old = shown(terminal)
    before = flash_steps(rig)
    old = update(rig)
    steps = flash_steps(rig) - before
    fates = []
    for part in range(POWER_CUTS):
        at = rig.random.randrange(steps * part // POWER_CUTS, steps * (part + 1) // POWER_CUTS) + 1
        hold, new = holding_chunks(rig, chunk_count(rig))
        terminal.rpc("cut", n=at, keep=rig.random.randrange(-1, 200), seed=rig.random.randrange(2**16))
        release_to_the_end(rig, hold)
        status = terminal.board.power.wait_off(20)
        check(status == EXIT_POWER_CUT, f"step {at} of {steps}: the board ended with {status}, not the cut")
        rig.link.refuse()
        terminal.boot()
        seen = shown(terminal)
        check(seen in (old, new), f"cut in step {at} of {steps}: menu {seen.version} is neither old nor new")
        fates.append(f"{at} {'new' if seen == new else 'old'}")
        rig.link.clear()
        if seen == old:
            await_edition(terminal, new)
        old = new
    good_order_works(rig)
    return f"cuts in steps {', '.join(fates)} of about {steps}"


def flash_steps(rig: Rig) -> int:
    """Steps the flash has taken since power-on: page programs, and 16 for each erased sector."""
    stats = rig.terminal.rpc("flash")["stats"]
    return int(stats["programs"]) + 16 * int(stats["erases"])


# ---------------------------------------------------------------- what a menu rules out


@SUITE.case("sold_out_item_is_refused_in_words")
def sold_out_item_is_refused_in_words(rig: Rig) -> str:
    """An item the kitchen has run out of is answered SOLD_OUT, by name, and nothing is sold."""
    terminal = rig.terminal
    terminal.online()
    before = order_count(rig)
    rig.server.admin("stock", "set", str(COLA_ID), "0")
    try:
        reply = terminal.order([(COLA_ID, 1, ())])
        text = answer_text(rig, reply)
        check((reply.status, reply.arg) == (SOLD_OUT, COLA_ID), f"answered {reply}")
        check(text == "sold out: cola", f"the guest reads {text!r}")
        check(order_count(rig) == before, "a refused order is in the ledger")
        check(rig.server.ledger.stock(rig.options.site)[COLA_ID] == 0, "a refused order changed the stock")
    finally:
        rig.server.admin("stock", "set", str(COLA_ID), "none")
    good_order_works(rig)
    return str(text)


@SUITE.case("required_choices_hold_on_both_sides")
def required_choices_hold_on_both_sides(rig: Rig) -> None:
    """A steak without its doneness is refused by the terminal, and by a server asked past the terminal."""
    terminal = rig.terminal
    terminal.online()
    steak = shown(terminal).prices[RIB_EYE_ID]
    wrong: list[list[int]] = [[], [RARE], [RARE, RARE + 1, 131]]
    for modifiers in wrong:
        try:
            op = terminal.queue([(RIB_EYE_ID, 1, modifiers)])
        except RpcRefused as refusal:
            check(refusal.code == "MODIFIER_RULE", f"refused with {refusal.code}")
        else:
            check(False, f"the terminal took a steak with {modifiers} as {op}")
        op = terminal.queue([(RIB_EYE_ID, 1, modifiers)], total=steak)
        reply = terminal.reply(op)
        check(
            (reply.status, reply.arg) == (REJECTED, int(RejectCode.MODIFIER_RULE)),
            f"the server answered a steak with {modifiers}: {reply}",
        )
        check(not orders_of(rig, [op]), "an order against the rules is in the ledger")
    reply = terminal.order([(RIB_EYE_ID, 1, (RARE, 131))])
    check(reply.status == COMMITTED, f"a proper steak was answered {reply}")


@SUITE.case("the_demo_menu_is_back")
def the_demo_menu_is_back(rig: Rig) -> str:
    """The last edition of the suite is the demo menu as the repository has it, number aside."""
    rig.terminal.online()
    version = publish_demo(rig)
    await_version(rig.terminal, version)
    items = rig.terminal.rpc("menu", find="espresso")["items"]
    check([1, "espresso", 260] in items, f"the espresso is {items[0]}")
    return f"menu {version}"
