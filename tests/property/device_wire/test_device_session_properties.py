"""Whatever a hostile broker delivers, in any order: only the server's own Accept makes a session."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import cbor2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from session_peer import Counters, Hello, Server, identity
from terminal import session as machine
from terminal.session import Session
from terminal.wire import rsa
from terminal.wire.errors import WireError
from wire_fixtures import load_spki

ROOT = rsa.PublicKey.from_spki(load_spki("root"))
IDENTITY = identity()


def attempt(call: Any, *arguments: Any) -> Any:
    """The call's value, or the code of its refusal."""
    try:
        value = call(*arguments)
        return rsa.run_now(value) if hasattr(value, "send") else value
    except WireError as refusal:
        return refusal.code


class HostileBroker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.counters = Counters()
        self.server = Server()
        self.beacons: list[bytes] = []
        self.genuine: dict[bytes, bytes] = {}  # SHA-256 of a beacon -> the beacon
        self.hellos: list[Hello] = []
        self.accepts: list[bytes] = []
        self.accepted = False
        self.established: Hello | None = None  # the handshake of the newest session ever
        self.marks = [(0, 0)]
        self.boot()

    def boot(self) -> None:
        self.session = Session(IDENTITY, ROOT, self.counters, os.urandom, 256)
        self.accepted = False
        self.waiting: Hello | None = None

    @rule()
    def power_cycle(self) -> None:
        self.boot()

    @rule(menu_version=st.integers(1, 3))
    def server_beacon(self, menu_version: int) -> None:
        beacon = self.server.beacon(menu_version=menu_version)
        self.beacons.append(beacon)
        self.genuine[hashlib.sha256(beacon).digest()] = beacon
        assert attempt(self.session.on_beacon, beacon) in (True, False)

    @rule(data=st.data())
    @precondition(lambda self: self.beacons)
    def old_beacon(self, data: st.DataObject) -> None:
        attempt(self.session.on_beacon, data.draw(st.sampled_from(self.beacons)))

    @rule(counter=st.integers(0, 2**32 - 1), signer=st.sampled_from(["evil-root", "release"]))
    def forged_beacon(self, counter: int, signer: str) -> None:
        attempt(self.session.on_beacon, self.server.beacon(counter=counter, signer=signer))
        self.server.counter -= 1

    @rule()
    def verify(self) -> None:
        attempt(self.session.verify_beacon_steps)

    @rule()
    def hello(self) -> None:
        before = self.counters.handshake
        frame = attempt(self.session.hello_steps, 1, 0)
        if isinstance(frame, str):
            return
        assert self.counters.handshake == before + 1
        named = cbor2.loads(cbor2.loads(bytes(frame)).value[2])[4]
        self.waiting = self.server.read_hello(self.genuine[named], bytes(frame))
        assert self.waiting.fields[1] == self.counters.handshake
        self.hellos.append(self.waiting)
        self.accepted = False

    @rule()
    @precondition(lambda self: self.established is not None)
    def resume(self) -> None:
        before = self.counters.handshake
        frame = attempt(self.session.resume_steps, 1, 0)
        if isinstance(frame, str):
            return
        assert self.counters.handshake == before + 1
        assert self.established is not None
        named = cbor2.loads(cbor2.loads(bytes(frame)).value[2])[4]
        self.waiting = self.server.read_resume(self.genuine[named], bytes(frame), self.established)
        self.hellos.append(self.waiting)
        self.accepted = False

    @rule()
    @precondition(lambda self: self.waiting is not None)
    def server_accept(self) -> None:
        accept = self.server.accept(self.waiting)
        self.accepts.append(accept)
        outcome = attempt(self.session.answer_steps, accept)
        assert outcome == ("established", 0)
        self.accepted = True
        self.established = self.waiting
        self.waiting = None

    @rule(data=st.data())
    @precondition(lambda self: self.accepts)
    def old_accept(self, data: st.DataObject) -> None:
        assert isinstance(attempt(self.session.answer_steps, data.draw(st.sampled_from(self.accepts))), str)

    @rule(change=st.sampled_from(["signer", "hello_hash", "nonce_s", "key"]))
    @precondition(lambda self: self.hellos)
    def forged_accept(self, change: str) -> None:
        value: Any = {"signer": "evil-root", "hello_hash": bytes(32), "nonce_s": bytes(16), "key": bytes(32)}
        frame = self.server.accept(self.waiting or self.hellos[-1], **{change: value[change]})
        assert isinstance(attempt(self.session.answer_steps, frame), str)

    @rule(
        status=st.integers(0, 40),
        right=st.booleans(),
        arg=st.integers(0, 2**32 - 1),
        now_ms=st.integers(0, 2**29),
    )
    def hint(self, status: int, right: bool, arg: int, now_ms: int) -> None:
        ref = hashlib.sha256(self.session.hello_frame or b"").digest()[:8] if right else b"whatever"
        outcome = attempt(self.session.answer_steps, cbor2.dumps([status, ref, arg]))
        if not isinstance(outcome, str) and outcome.kind == "refused":
            self.waiting = None
        attempt(self.session.on_hint, cbor2.dumps([status, self.session.sid or b"none", arg]), now_ms)

    @rule(frame=st.binary(max_size=80))
    def noise(self, frame: bytes) -> None:
        attempt(self.session.on_beacon, frame)
        attempt(self.session.answer_steps, frame)
        attempt(self.session.open, frame)
        attempt(self.session.on_hint, frame, 0)

    @invariant()
    def a_session_exists_only_after_the_servers_accept(self) -> None:
        assert (self.session.state == machine.ESTABLISHED) == self.accepted

    @invariant()
    def the_beacon_mark_never_falls_and_names_a_genuine_beacon(self) -> None:
        assert self.counters.mark >= self.marks[-1]
        assert self.counters.mark[1] <= self.server.counter
        self.marks.append(self.counters.mark)

    @invariant()
    def what_is_believed_about_the_site_was_signed(self) -> None:
        site = self.session.site
        if site is not None:
            assert site.server_key.to_spki() == load_spki("server-sign")
            assert site.menu_version in (1, 2, 3)


TestHostileBroker = HostileBroker.TestCase
TestHostileBroker.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
