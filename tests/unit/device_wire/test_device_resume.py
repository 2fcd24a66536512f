"""A Resume: a new session from the old one's key, without the device's RSA key, also after a reboot."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import cbor2
import pytest
from session_peer import DEVICE, SITE, Counters, Hello, Server, identity
from terminal import session as machine
from terminal.session import Session
from terminal.wire import rsa
from terminal.wire.errors import WireError
from wire_fixtures import load_spki

ROOT = rsa.PublicKey.from_spki(load_spki("root"))
run = rsa.run_now


class WithoutRsaKey:
    """An identity whose private key must not be touched."""

    site, device = SITE, DEVICE

    @property
    def private(self) -> Any:
        raise AssertionError("the device's RSA key was used")


def boot(counters: Counters, who: Any = None) -> Session:
    return Session(who or identity(), ROOT, counters, os.urandom, 256)


def hello(session: Session, server: Server) -> Hello:
    beacon = server.beacon()
    session.on_beacon(beacon)
    opened = server.read_hello(beacon, run(session.hello_steps(1, 0)))
    assert run(session.answer_steps(server.accept(opened))).kind == "established"
    return opened


def resume(session: Session, server: Server, old: Hello, pending: int = 0) -> Hello:
    beacon = server.beacon()
    session.on_beacon(beacon)
    frame = bytes(run(session.resume_steps(1, pending)))
    opened = server.read_resume(beacon, frame, old)
    server.sid = os.urandom(4)
    assert run(session.answer_steps(server.accept(opened))).kind == "established"
    return opened


@pytest.fixture
def counters() -> Counters:
    return Counters()


def refusal(session: Session) -> bytes:
    return cbor2.dumps([18, hashlib.sha256(session.hello_frame).digest()[:8], 0])


def test_a_new_terminal_has_nothing_to_resume(counters: Counters) -> None:
    session = boot(counters)
    assert not session.can_resume()
    session.on_beacon(Server().beacon())
    with pytest.raises(WireError, match=r"^WRONG_STATE$"):
        run(session.resume_steps(1, 0))


def test_a_resume_after_a_reboot_makes_a_session_without_the_rsa_key(counters: Counters) -> None:
    server = Server()
    first = hello(boot(counters), server)
    session = boot(counters, WithoutRsaKey())
    second = resume(session, server, first)
    assert session.state == machine.ESTABLISHED
    assert session.sid == server.sid
    assert server.read_op(second, bytes(session.seal(cbor2.dumps([1, 2])))) == (1, [1, 2])


def test_resumes_follow_each_other_each_with_a_new_key(counters: Counters) -> None:
    server = Server()
    opened = hello(boot(counters), server)
    keys = {counters.values["resume"]}
    for pending in range(4):
        opened = resume(boot(counters, WithoutRsaKey()), server, opened, pending)
        assert opened.fields[7] == pending
        assert counters.values["resume"] == server.sid + opened.keys["resume"]
        keys.add(counters.values["resume"])
    assert len(keys) == 5
    assert [opened.fields[1], counters.handshake] == [5, 5]


def test_the_resume_says_who_when_and_about_which_beacon(counters: Counters) -> None:
    server = Server()
    first = hello(boot(counters), server)
    session = boot(counters)
    beacon = server.beacon()
    session.on_beacon(beacon)
    fields = server.read_resume(beacon, bytes(run(session.resume_steps(7, 3))), first).fields
    assert fields[:2] == [DEVICE, 2]
    assert fields[3:5] == [2, hashlib.sha256(beacon).digest()]
    assert fields[5:] == [256, 7, 3]


def test_the_next_key_is_stored_before_the_session_is_used(counters: Counters) -> None:
    server = Server()
    session = boot(counters)
    hello(session, server)
    assert counters.log[-1] == "resume"
    assert counters.log.index("handshake") < counters.log.index("resume")


def test_a_refused_resume_is_followed_by_a_hello_at_once_and_not_by_a_second_resume(
    counters: Counters,
) -> None:
    server = Server()
    hello(boot(counters), server)
    session = boot(counters)
    beacon = server.beacon()
    session.on_beacon(beacon)
    run(session.resume_steps(1, 0))
    assert run(session.answer_steps(refusal(session))) == ("refused", 0)
    assert not session.can_resume()
    assert not boot(counters).can_resume()
    opened = server.read_hello(beacon, run(session.hello_steps(1, 0)))
    assert run(session.answer_steps(server.accept(opened))).kind == "established"
    assert session.can_resume()


def test_a_power_cut_before_the_answer_keeps_the_way_to_a_session_open(counters: Counters) -> None:
    server = Server()
    first = hello(boot(counters), server)
    cut = boot(counters)
    cut.on_beacon(server.beacon())
    run(cut.resume_steps(1, 0))
    resume(boot(counters), server, first)


def test_an_accept_of_the_hello_does_not_answer_a_resume(counters: Counters) -> None:
    server, session = Server(), boot(counters)
    beacon = server.beacon()
    session.on_beacon(beacon)
    accept = server.accept(server.read_hello(beacon, run(session.hello_steps(1, 0))))
    run(session.answer_steps(accept))
    run(session.resume_steps(1, 0))
    with pytest.raises(WireError, match=r"^BAD_TAG$"):
        run(session.answer_steps(accept))


@pytest.mark.parametrize("value", [b"", b"short", bytes(35), bytes(37)])
def test_a_spoilt_ticket_is_no_ticket(counters: Counters, value: bytes) -> None:
    counters.put("resume", value)
    assert not boot(counters).can_resume()
