"""The session state machine against an independent server: it trusts exactly one chain."""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest
from session_peer import DEVICE, SITE, TABLE, Counters, Hello, Server, aad, certificate, identity, mac0
from terminal import session as machine
from terminal.session import Session
from terminal.wire import cose, rsa
from terminal.wire.errors import WireError
from terminal.wire.frames import encode_order
from wire_fixtures import load_spki

ROOT = rsa.PublicKey.from_spki(load_spki("root"))
OP_ID = bytes(range(12))


def new_session(counters: Counters | None = None) -> Session:
    return Session(identity(), ROOT, counters or Counters(), os.urandom, 256)


def run(steps: Any) -> Any:
    return rsa.run_now(steps)


@dataclass
class Established:
    session: Session
    server: Server
    hello: Hello
    accept: bytes


def establish(session: Session | None = None, server: Server | None = None) -> Established:
    session = session or new_session()
    server = server or Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    hello = server.read_hello(beacon, run(session.hello_steps(1, 0)))
    accept = server.accept(hello)
    assert run(session.answer_steps(accept)).kind == "established"
    return Established(session, server, hello, accept)


@pytest.fixture
def pair() -> Established:
    return establish()


def refused(code: str) -> Any:
    return pytest.raises(WireError, match=f"^{code}$")


# ---------------------------------------------------------------- the good path


def test_a_handshake_ends_in_a_session_both_sides_share(pair: Established) -> None:
    session, server = pair.session, pair.server
    assert session.state == machine.ESTABLISHED
    assert session.sid == server.sid
    assert (session.accept.window, session.accept.table) == (8, TABLE)
    order = encode_order(OP_ID, TABLE, [(1, 2, []), (3, 1, [101])], 1, 1040)
    for sequence in (1, 2, 3):
        assert server.read_op(pair.hello, bytes(session.seal(order))) == (sequence, cbor2.loads(order))
    reply = server.reply(pair.hello, OP_ID, 0, 0, 1001, 1040, 17)
    assert session.open(memoryview(reply)) == (OP_ID, 0, 0, 1001, 1040, 17, b"\x22" * 32)


def test_the_hello_says_who_when_and_about_which_beacon() -> None:
    session, server = new_session(), Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    fields = server.read_hello(beacon, run(session.hello_steps(7, 3))).fields
    assert fields[:2] == [DEVICE, 1]
    assert fields[3:5] == [1, hashlib.sha256(beacon).digest()]
    assert fields[6:] == [256, 7, 3]


def test_the_handshake_counter_is_stored_before_the_hello_exists() -> None:
    counters = Counters()
    session, server = new_session(counters), Server()
    session.on_beacon(server.beacon())
    steps = session.hello_steps(1, 0)
    while counters.handshake == 0:
        next(steps)
    assert session.hello_frame is None
    assert counters.log == ["beacon", "handshake"]
    run(steps)
    assert session.hello_frame is not None


def test_every_hello_takes_a_new_counter_nonce_and_secret() -> None:
    counters = Counters()
    session, server = new_session(counters), Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    hellos = [server.read_hello(beacon, run(session.hello_steps(1, 0))).fields for _ in range(3)]
    assert [fields[1] for fields in hellos] == [1, 2, 3]
    assert len({fields[2] for fields in hellos}) == 3
    assert len({fields[5] for fields in hellos}) == 3


def test_a_new_session_replaces_the_old(pair: Established) -> None:
    again = establish(pair.session, Server(epoch=1))
    assert again.session.sid == again.server.sid != pair.server.sid
    with refused("WRONG_KEY"):
        pair.session.open(pair.server.reply(pair.hello, OP_ID, 0, 0, 1, 1, 1))


# ---------------------------------------------------------------- whom to believe


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"certificate": certificate(signer="evil-root")}, "WRONG_KEY"),
        ({"certificate": certificate("release", purpose="release", site="")}, "WRONG_PURPOSE"),
        ({"certificate": certificate(purpose="release")}, "WRONG_PURPOSE"),
        ({"certificate": certificate(site="other")}, "BAD_SIGNATURE"),
        ({"certificate": certificate("release", purpose="server-sign")}, "WRONG_KEY"),
        ({"certificate": certificate(epoch=2)}, "WRONG_KEY"),
        ({"certificate": b"\xd2\x84"}, "TRUNCATED"),
        ({"signer": "evil-root"}, "WRONG_KEY"),
    ],
)
def test_a_beacon_without_the_right_chain_is_refused(changes: dict[str, Any], code: str) -> None:
    session, server = new_session(), Server()
    session.on_beacon(server.beacon(**changes))
    with refused(code):
        run(session.hello_steps(1, 0))
    assert session.site is None
    assert session.hello_frame is None


def test_a_beacon_with_a_flipped_bit_is_refused_and_the_last_good_one_still_serves() -> None:
    session, server = new_session(), Server()
    good = server.beacon()
    session.on_beacon(good)
    run(session.verify_beacon_steps())
    bad = bytearray(server.beacon(menu_version=2))
    bad[-1] ^= 1
    assert session.on_beacon(bytes(bad)) is True
    with refused("BAD_SIGNATURE"):
        run(session.verify_beacon_steps())
    assert session.site.menu_version == 1
    server.read_hello(good, run(session.hello_steps(1, 0)))


def test_a_beacon_of_another_site_is_refused() -> None:
    session = new_session()
    with refused("WRONG_SITE"):
        session.on_beacon(Server().beacon(site="elsewhere"))
    assert session.state == machine.IDLE


def test_an_older_beacon_is_refused_also_after_a_reboot() -> None:
    counters = Counters()
    session, server = new_session(counters), Server()
    old, new = server.beacon(), server.beacon()
    session.on_beacon(new)
    run(session.verify_beacon_steps())
    assert counters.mark == (1, 2)
    with refused("STALE"):
        session.on_beacon(old)
    with refused("STALE"):
        new_session(counters).on_beacon(old)


def test_a_lower_epoch_is_refused_whatever_its_counter() -> None:
    counters = Counters(mark=(2, 5))
    with refused("STALE"):
        new_session(counters).on_beacon(Server(epoch=1).beacon(counter=900))


def test_a_higher_epoch_retires_the_lower() -> None:
    counters = Counters()
    session = new_session(counters)
    first = Server(epoch=1)
    session.on_beacon(first.beacon())
    run(session.verify_beacon_steps())
    session.on_beacon(Server(epoch=2, key_name="evil-root").beacon(counter=1))
    run(session.verify_beacon_steps())
    assert counters.mark == (2, 1)
    with refused("STALE"):
        session.on_beacon(first.beacon())


def test_a_forged_beacon_with_a_huge_counter_does_not_lock_out_the_server() -> None:
    session, server = new_session(), Server()
    session.on_beacon(server.beacon(counter=2**32 - 1, signer="evil-root"))
    with refused("WRONG_KEY"):
        run(session.verify_beacon_steps())
    session.on_beacon(server.beacon())
    assert run(session.verify_beacon_steps()).counter == 2


def test_one_certificate_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    original = machine.certificate_steps

    def counting(*arguments: Any) -> Any:
        verified.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(machine, "certificate_steps", counting)
    session, server = new_session(), Server()
    frame = certificate()
    for _ in range(3):
        session.on_beacon(server.beacon(certificate=frame))
        run(session.verify_beacon_steps())
    assert len(verified) == 1


def test_a_beacon_says_whether_it_is_worth_a_verification() -> None:
    session, server = new_session(), Server()
    first = server.beacon()
    assert session.on_beacon(first) is True
    run(session.verify_beacon_steps())
    assert session.on_beacon(first) is False
    assert session.on_beacon(server.beacon()) is False
    assert session.on_beacon(server.beacon(menu_version=2)) is True
    assert session.on_beacon(server.beacon(menu_hash=b"\x12" * 32)) is True


# ---------------------------------------------------------------- answers to a Hello


def sent() -> tuple[Session, Server, Hello]:
    session, server = new_session(), Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    return session, server, server.read_hello(beacon, run(session.hello_steps(1, 0)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": bytes(32)}, "BAD_TAG"),
        ({"signer": "evil-root"}, "WRONG_KEY"),
        ({"signer": "release"}, "WRONG_KEY"),
        ({"hello_hash": bytes(32)}, "UNSOLICITED"),
        ({"nonce_s": bytes(16)}, "UNSOLICITED"),
        ({"inner_aad": aad("accept", SITE, "t-0002")}, "BAD_SIGNATURE"),
        ({"inner_aad": aad("accept", "other", DEVICE)}, "BAD_SIGNATURE"),
        ({"inner_aad": aad("beacon", SITE, DEVICE)}, "BAD_SIGNATURE"),
        ({"window": 0}, "OUT_OF_RANGE"),
        ({"sid": b"abcde"}, "OUT_OF_RANGE"),
    ],
)
def test_an_accept_that_is_not_exactly_the_servers_is_refused(changes: dict[str, Any], code: str) -> None:
    session, server, hello = sent()
    with refused(code):
        run(session.answer_steps(server.accept(hello, **changes)))
    assert session.state == machine.HELLO_SENT
    assert session.sealer is None
    assert run(session.answer_steps(server.accept(hello))).kind == "established"


def test_an_accept_of_an_earlier_hello_is_refused() -> None:
    session, server = new_session(), Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    first = server.read_hello(beacon, run(session.hello_steps(1, 0)))
    run(session.hello_steps(1, 0))
    with refused("BAD_TAG"):
        run(session.answer_steps(server.accept(first)))


def test_a_replayed_accept_does_not_restart_the_session(pair: Established) -> None:
    pair.session.seal(b"\x86" + bytes(30))
    with refused("UNSOLICITED"):
        run(pair.session.answer_steps(pair.accept))
    assert pair.session.sealer.sequence == 1


def hint(status: int, ref: bytes, arg: int = 0) -> bytes:
    return cbor2.dumps([status, ref, arg])


def test_a_rate_limit_asks_for_the_same_hello_later() -> None:
    session, server, hello = sent()
    ref = hashlib.sha256(hello.frame).digest()[:8]
    assert run(session.answer_steps(hint(16, ref, 750))) == ("retry", 750)
    assert run(session.answer_steps(hint(16, ref, 2**32 - 1))) == ("retry", 300_000)
    assert bytes(session.hello_frame) == hello.frame
    assert run(session.answer_steps(server.accept(hello))).kind == "established"


def test_a_refused_hello_backs_off_longer_each_time_up_to_a_bound() -> None:
    session, server = new_session(), Server()
    beacon = server.beacon()
    session.on_beacon(beacon)
    for refusals in range(12):
        frame = run(session.hello_steps(1, 0))
        kind, wait_ms = run(session.answer_steps(hint(18, hashlib.sha256(frame).digest()[:8])))
        full = min(1000 << refusals, 300_000)
        assert kind == "refused"
        assert full // 2 <= wait_ms <= full
        assert session.state == machine.HAVE_BEACON
        assert session.hello_frame is None


@pytest.mark.parametrize("status", [16, 17, 18, 31])
def test_a_hint_about_another_hello_is_ignored(status: int) -> None:
    session, _, hello = sent()
    with refused("UNSOLICITED"):
        run(session.answer_steps(hint(status, b"\0" * 8)))
    if status in (17, 31):
        with refused("UNSOLICITED"):
            run(session.answer_steps(hint(status, hashlib.sha256(hello.frame).digest()[:8])))
    assert session.state == machine.HELLO_SENT


# ---------------------------------------------------------------- messages


def test_replies_of_another_direction_kind_session_or_device_are_refused(pair: Established) -> None:
    session, server, hello = pair.session, pair.server, pair.hello
    fields = (0, 0, 1, 1, 1)
    with refused("BAD_TAG"):
        session.open(server.reply(hello, OP_ID, *fields, key="d2s"))
    with refused("BAD_TAG"):
        session.open(server.reply(hello, OP_ID, *fields, kind="op"))
    with refused("BAD_ENVELOPE|BAD_TAG|WRONG_KEY|OUT_OF_RANGE"):
        session.open(session.seal(encode_order(OP_ID, TABLE, [(1, 1, [])], 1, 1)))
    other = Server()
    with refused("WRONG_KEY"):
        session.open(other.reply(hello, OP_ID, *fields))


@pytest.mark.parametrize("status", [6, 7, 15, 17, 24, 255])
def test_an_unknown_status_is_refused_even_with_a_valid_mac(pair: Established, status: int) -> None:
    with refused("OUT_OF_RANGE|WRONG_TYPE"):
        pair.session.open(pair.server.reply(pair.hello, OP_ID, status, 0, 0, 0, 0))


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**30 - 1, 2**30, 2**32 - 1])
def test_numbers_of_every_width_are_read(pair: Established, number: int) -> None:
    reply = pair.server.reply(pair.hello, OP_ID, 5, number, number, number, number)
    assert pair.session.open(reply)[1:6] == (5, number, number, number, number)


@pytest.mark.parametrize("number", ["1817", "1900ff", "1a0000ffff", "1b00000000ffffffff", "20", "1c", "1f"])
def test_a_number_in_another_form_is_refused_even_with_a_valid_mac(pair: Established, number: str) -> None:
    for position in range(1, 5):
        numbers = [b"\0"] * 5
        numbers[position] = bytes.fromhex(number)
        payload = b"\x87\x4c" + OP_ID + b"".join(numbers) + b"\x58\x20" + bytes(32)
        external_aad = aad("reply", SITE, DEVICE, pair.server.sid, pair.hello.th8)
        with refused("NOT_SHORTEST|WRONG_TYPE"):
            pair.session.open(mac0(pair.hello.keys["s2d"], pair.server.sid, external_aad, payload))


@pytest.mark.parametrize("count", [0, 4, 6, 7])
def test_a_reply_with_more_or_fewer_numbers_is_refused_even_with_a_valid_mac(
    pair: Established, count: int
) -> None:
    for width in (1, 5):
        number = b"\0" if width == 1 else b"\x1a\0\1\0\0"
        payload = b"\x87\x4c" + OP_ID + number * count + b"\x58\x20" + bytes(32)
        external_aad = aad("reply", SITE, DEVICE, pair.server.sid, pair.hello.th8)
        with refused("WRONG_TYPE|OUT_OF_RANGE"):
            pair.session.open(mac0(pair.hello.keys["s2d"], pair.server.sid, external_aad, payload))


def test_a_log_number_may_exceed_32_bits_and_nothing_else_may(pair: Established) -> None:
    assert pair.session.open(pair.server.reply(pair.hello, OP_ID, 0, 0, 1, 1, 2**53))[5] == 2**53
    for position in range(1, 4):
        fields = [0, 0, 0, 0, 0]
        fields[position] = 2**32
        with refused("OUT_OF_RANGE"):
            pair.session.open(pair.server.reply(pair.hello, OP_ID, *fields))


def test_sequence_numbers_of_every_width_are_sealed(pair: Established) -> None:
    order = encode_order(OP_ID, TABLE, [(1, 1, [])], 1, 1)
    for previous in (0, 22, 23, 254, 255, 65534, 65535, 2**20 - 1):
        pair.session.sealer.sequence = previous
        assert pair.server.read_op(pair.hello, bytes(pair.session.seal(order)))[0] == previous + 1


def test_orders_of_every_size_are_sealed_up_to_the_limit(pair: Established) -> None:
    for size in (1, 20, 21, 22, 23, 24, 250, 252, 253, 254, 255, 256, 600, 960):
        op = cbor2.dumps(bytes(size))
        assert pair.server.read_op(pair.hello, bytes(pair.session.seal(op)))[1] == bytes(size)
    before = pair.session.sealer.sequence
    with refused("TOO_LARGE"):
        pair.session.seal(bytes(1024))
    assert pair.session.sealer.sequence == before


def test_a_session_ends_before_its_numbers_do(pair: Established) -> None:
    assert not pair.session.needs_rekey()
    pair.session.sealer.sequence = 2**20 - 4096
    assert pair.session.needs_rekey()
    pair.session.sealer.sequence = 2**20
    with refused("SEQUENCE_SPENT"):
        pair.session.seal(bytes(40))


def test_hints_make_a_new_session_at_a_bounded_rate(pair: Established) -> None:
    session = pair.session
    rekeys = []
    for now_ms in range(0, 600_000, 100):  # a hostile broker hints ten times a second for ten minutes
        if session.on_hint(hint(17, session.sid), now_ms):
            assert session.needs_rekey()
            rekeys.append(now_ms)
            establish(session, Server())
    assert len(rekeys) < 12
    gaps = [later - earlier for earlier, later in itertools.pairwise(rekeys)]
    assert gaps == sorted(gaps)


def test_a_hint_about_another_session_changes_nothing(pair: Established) -> None:
    for frame in (hint(17, b"\0\0\0\0"), hint(16, pair.session.sid), hint(18, pair.session.sid)):
        with refused("UNSOLICITED"):
            pair.session.on_hint(frame, 0)
    assert not pair.session.needs_rekey()


# ---------------------------------------------------------------- order of events


def test_events_out_of_order_are_refused(pair: Established) -> None:
    session = new_session()
    with refused("WRONG_STATE"):
        run(session.hello_steps(1, 0))
    with refused("WRONG_STATE"):
        run(session.verify_beacon_steps())
    with refused("WRONG_STATE"):
        session.seal(bytes(40))
    with refused("WRONG_STATE"):
        session.open(bytes(100))
    with refused("UNSOLICITED"):
        run(session.answer_steps(pair.accept))


def test_two_handshakes_at_once_are_refused_and_an_abandoned_one_frees_the_way() -> None:
    session, server = new_session(), Server()
    session.on_beacon(server.beacon())
    first = session.hello_steps(1, 0)
    next(first)
    with refused("WRONG_STATE"):
        run(session.hello_steps(1, 0))
    first.close()
    session.on_beacon(server.beacon())
    assert run(session.hello_steps(1, 0)) == session.hello_frame


def test_no_secret_shows_in_a_refusal(pair: Established) -> None:
    with pytest.raises(WireError) as refusal:
        pair.session.open(pair.server.reply(pair.hello, OP_ID, 0, 0, 0, 0, 0, key="d2s"))
    assert refusal.value.args == ("BAD_TAG",)
    assert str(refusal.value) == refusal.value.code == "BAD_TAG"
    assert cose.MAX_SEQUENCE == 2**20
