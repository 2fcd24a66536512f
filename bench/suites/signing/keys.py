"""Stolen terminals, sessions past their end, old epochs, weak algorithms, floods."""

from __future__ import annotations

import time

from bench.errors import check
from bench.faults.mqtt import Publish
from bench.faults.rules import flip_bit
from bench.impostor import hint_status, is_hint
from bench.rig import Rig
from bench.suites import forging
from bench.suites.signing.common import (
    DOWN,
    HMAC_256_64,
    HMAC_256_256,
    ONE_ESPRESSO,
    RATE_LIMITED,
    SHORT_TTL_S,
    SUITE,
    UP,
    genuine_beacon,
    refuses_beacon,
    rekey,
)
from bench.suites.steps import (
    ESPRESSO_MINOR,
    HELLOS,
    REPLIES,
    await_refusals,
    committed_once,
    good_order_works,
    order_count,
    orders_of,
    refusals,
    session_id,
)
from bench.wait import until
from server.wire.frames import Hint, HintStatus


@SUITE.case("suspended_device_loses_its_session", threat="a stolen terminal")
def suspended_device_loses_its_session(rig: Rig) -> None:
    """A suspended terminal loses its session at once; its queued order is committed after reactivation."""
    terminal = rig.terminal
    terminal.online()
    rig.server.admin("devices", "suspend", "t-0001")
    try:
        check(session_id(rig) is None, "the suspended terminal still has a session")
        refused = refusals(rig)
        op = terminal.queue()
        await_refusals(rig, refused)
        check(not orders_of(rig, [op]), "a suspended terminal's order was committed")
    finally:
        rig.server.admin("devices", "activate", "t-0001")
    committed_once(rig, terminal.reply(op, 45))


@SUITE.case("expired_session_is_renewed", threat="a session past its end", deadline_s=90)
def expired_session_is_renewed(rig: Rig) -> None:
    """A session past its end is refused with a hint, and the terminal makes a new one for its order."""
    terminal, server = rig.terminal, rig.server
    with server.restarted_with("--session-ttl", str(SHORT_TTL_S)):
        since = terminal.console.mark()
        terminal.boot()
        terminal.await_session(since)
        old = session_id(rig)
        hints = rig.link.tap(DOWN, REPLIES)
        until(lambda: not _is_live(rig, old), "the session's end", SHORT_TTL_S + 5)
        op = terminal.queue()
        committed_once(rig, terminal.reply(op))
        check(
            any(is_hint(c.publish.payload) for c in hints.seen), "the server did not say the session is over"
        )
        check(session_id(rig) != old, "the old session is still there")
    terminal.boot()
    good_order_works(rig)


def _is_live(rig: Rig, sid: bytes | None) -> bool:
    sessions = [s for s in rig.server.ledger.sessions(rig.options.site) if s.sid == sid]
    return any(session.expires_at > time.time() for session in sessions)


@SUITE.case("older_beacon_is_refused", threat="a beacon older than one already seen")
def older_beacon_is_refused(rig: Rig) -> None:
    """A beacon older than one already verified is refused."""
    genuine_beacon(rig)
    old = next(c.publish.payload for c in rig.link.captures if c.publish.topic.endswith("/beacon"))
    counter = forging.open_beacon(old, rig.options.site).counter
    until(
        lambda: forging.open_beacon(genuine_beacon(rig), rig.options.site).counter > counter,
        "a newer beacon",
        deadline_s=15,
    )
    rekey(rig)  # the newer one is verified and remembered
    refuses_beacon(rig, old)


@SUITE.case("lower_epoch_is_refused", threat="a server key of a lower epoch")
def lower_epoch_is_refused(rig: Rig) -> None:
    """A beacon under a retired server key, certified by the true root but of a lower epoch, is refused."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    refuses_beacon(
        rig,
        forging.false_beacon(genuine, forging.fixture_signer("root"), "server-sign", epoch=genuine.epoch - 1),
    )


@SUITE.case("release_certificate_is_no_server", threat="a release certificate used as a server's")
def release_certificate_is_no_server(rig: Rig) -> None:
    """A beacon signed by a certified release key is refused: the purpose is part of the certificate."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    refuses_beacon(
        rig, forging.false_beacon(genuine, forging.fixture_signer("root"), "release", purpose="release")
    )


@SUITE.case("weaker_algorithm_is_refused", threat="a weaker algorithm in the header")
def weaker_algorithm_is_refused(rig: Rig) -> None:
    """HMAC 256/64 instead of 256/256, with a right key and either tag length, is refused."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        before, refused = order_count(rig), refusals(rig, "t-0008")
        strong = impostor.seal(impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR).encode())
        weak = strong.replace(HMAC_256_256, HMAC_256_64, 1)
        check(weak != strong, "the header was not where it should be")
        impostor.say("op", weak)
        impostor.say("op", weak[:-34] + b"\x48" + weak[-32:-24])
        await_refusals(rig, refused, "t-0008", 2)
        check(order_count(rig) == before, "a weakly protected op became an order")


@SUITE.case("forged_hint_changes_nothing", threat="a forged hint")
def forged_hint_changes_nothing(rig: Rig) -> str:
    """Twenty forged hints cost at most a few handshakes; no op is lost and the next order works."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    sid = session_id(rig)
    assert sid is not None
    hellos = link.tap(UP, HELLOS)
    for _ in range(10):
        for hint in (
            Hint(HintStatus.UNKNOWN_SESSION, sid, 0),
            Hint(HintStatus.RATE_LIMITED, sid, 4_000_000_000),
        ):
            link.inject(DOWN, Publish("d/demo/t-0001/reply", hint.encode()), "t-0001")
    op = terminal.queue()
    committed_once(rig, terminal.reply(op))
    check(len(hellos.seen) <= 3, f"forged hints made the terminal send {len(hellos.seen)} Hellos")
    return f"{len(hellos.seen)} handshakes"


@SUITE.case("hello_flood_is_limited", threat="a flood of Hellos")
def hello_flood_is_limited(rig: Rig) -> str:
    """A flood of Hellos is limited before any RSA work; another terminal's order is served meanwhile."""
    flood = 200
    with rig.impostor() as impostor:
        frame, _, _ = impostor.hello()
        since = impostor.mark()
        for number in range(flood):
            impostor.say("hello", flip_bit(-1 - number)(frame))
        reply = good_order_works(rig)
        answers = impostor.await_heard("hello", since, flood, deadline_s=30)
    limited = sum(hint_status(answer) == RATE_LIMITED for answer in answers)
    check(all(is_hint(answer) for answer in answers), "a flipped Hello was accepted")
    check(limited >= flood * 3 // 4, f"only {limited} of {flood} were limited")
    return f"{limited} of {flood} limited, an order meanwhile took {reply.ms:.0f} ms"
