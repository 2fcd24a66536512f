"""Who speaks: the honest handshake, strangers, false keys, a false server."""

from __future__ import annotations

from bench.errors import check
from bench.faults.rules import Change, flip_bit
from bench.impostor import Impostor, LoginRefused, hint_status, is_hint
from bench.paths import FIXTURES
from bench.provision import identity, private_key
from bench.rig import Rig
from bench.suites import forging
from bench.suites.signing.common import (
    DOWN,
    HELLO_REFUSED,
    SUITE,
    UP,
    genuine_beacon,
    refuses_beacon,
    rekey,
)
from bench.suites.steps import (
    BEACONS,
    HELLOS,
    await_terminal_refusals,
    good_order_works,
    session_id,
    terminal_refusals,
)
from server.wire.rsa import RsaSigner


@SUITE.case("signed_order_is_committed")
def signed_order_is_committed(rig: Rig) -> str:
    """An honest order is committed once, and terminal and ledger agree on number and total."""
    reply = good_order_works(rig)
    return f"order {reply.order}, total {reply.total_minor}, {reply.ms:.0f} ms"


@SUITE.case("handshake_makes_a_session")
def handshake_makes_a_session(rig: Rig) -> str:
    """A new handshake replaces the session on both sides."""
    before = session_id(rig)
    rekey(rig)
    after = session_id(rig)
    check(
        after is not None and after != before, f"the server's session is {after!r}, before it was {before!r}"
    )
    event = rig.terminal.console.events("session")[-1]
    rig.measure("handshake", float(event.data["ms"]), "ms")
    check(bytes.fromhex(event.data["sid"]) == after, f"terminal has {event.data['sid']}, server {after!r}")
    return f"session {event.data['sid']}"


@SUITE.case("unregistered_device_gets_no_session", threat="a terminal nobody registered")
def unregistered_device_gets_no_session(rig: Rig) -> str:
    """A terminal nobody registered does not even get past the broker, with its own or a known name."""
    stranger = identity(7, rig.options.site)
    refused = []
    for device, password in ((stranger.device, stranger.password), ("t-0001", "guess"), ("nobody", "")):
        stranger.device, stranger.password = device, password
        try:
            with Impostor(rig.server.port, stranger):
                pass
        except LoginRefused as error:
            refused.append(str(error))
    check(len(refused) == 3, f"only {len(refused)} of 3 strangers were turned away")
    check(session_id(rig, "t-0007") is None, "the stranger has a session")
    return refused[0]


@SUITE.case("hello_by_another_key_is_refused", threat="a Hello signed by another key than the registered one")
def hello_by_another_key_is_refused(rig: Rig) -> None:
    """A Hello under a registered name, signed by another key, gets the one refusal and no session."""
    another, registered = (RsaSigner(private_key(identity(number))) for number in (6, 8))
    for signer in (another, forging.ClaimingSigner(another, registered.kid)):
        with rig.impostor(signer=signer) as impostor:
            frame, _, _ = impostor.hello()
            impostor.say("hello", frame)
            answer = impostor.await_heard("hello")[0]
        check(is_hint(answer) and hint_status(answer) == HELLO_REFUSED, f"answered {answer.hex()}")
    check(session_id(rig, "t-0008") is None, "a session exists")


@SUITE.case("false_server_is_refused", threat="a false server with its own root")
def false_server_is_refused(rig: Rig) -> None:
    """A beacon under a false root, also one claiming the true root's key id, is refused: no Hello leaves."""
    genuine = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    evil, root = forging.fixture_signer("evil-root"), forging.fixture_signer("root")
    claiming = forging.false_beacon(genuine, forging.ClaimingSigner(evil, root.kid), "server-sign")
    refuses_beacon(rig, forging.false_beacon(genuine, evil, "server-sign"))
    terminal, link = rig.terminal, rig.link
    link.rule(
        DOWN, BEACONS, Change(lambda payload: claiming)
    )  # at the start there is no other to fall back on
    hellos = link.tap(UP, HELLOS)
    since = terminal.console.mark()
    terminal.boot()
    await_terminal_refusals(terminal, 0)
    check(not hellos.seen, "the terminal sent a Hello to a false server")
    link.clear()
    terminal.rpc("drop")
    terminal.await_session(since)
    good_order_works(rig)


@SUITE.case("false_menu_is_refused", threat="a false menu")
def false_menu_is_refused(rig: Rig) -> str:
    """A menu changed on its way is not stored: the old one stays, and the true one is taken later."""
    terminal, link = rig.terminal, rig.link
    before = terminal.rpc("info")["menu"]
    rule = link.rule(DOWN, "s/+/menu/+", Change(lambda payload: flip_bit(-400)(payload)))
    refused = terminal_refusals(terminal)
    rig.server.admin("menu", "publish", str(FIXTURES / "menu" / "demo.json"), "--next")
    link.fired(rule)
    await_terminal_refusals(terminal, refused)
    check(terminal.rpc("info")["menu"] == before, "the terminal shows the false menu")
    link.clear()
    terminal.rpc("drop")
    event = terminal.console.event("menu", where=lambda data: data["version"] > before, deadline_s=30)
    good_order_works(rig)
    return f"menu {before} kept, then {event.data['version']}"
