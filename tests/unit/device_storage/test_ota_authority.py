"""An offer counts only when the server names it in answer to the terminal's nonce; keys follow each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boards.host.hostboard import HostBoard
from signing import private_key
from terminal.ota import states
from terminal.ota.authority import Authority
from terminal.wire.errors import WireError
from terminal.wire.rsa import PublicKey
from test_ota_agent import HARDWARE, IMAGE, Bundle, Terminal

from server.releases import words
from server.releases.bundle import certify
from server.wire.frames import SERVER_SIGN, Certificate
from server.wire.freshness import OtaAsk, OtaFresh
from server.wire.rotation import Rotation
from server.wire.rsa import RsaSigner, VerifyKey

SITE, DEVICE, SID, KEY, TH8 = "demo", "t-0001", b"sid1", b"k" * 32, b"transcri"
SIGNERS = {name: RsaSigner(private_key(name)) for name in ("root", "release", "release-2", "evil-root")}
ROOT = PublicKey.from_spki(SIGNERS["root"].spki)
QUESTIONS = [(HARDWARE, IMAGE)]


class Counters(dict[str, bytes]):
    """The counters region, as far as a release key's epoch needs it."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = bytes(value)


class Server:
    """What answers a terminal's questions; `named` is the bundle it names."""

    def __init__(self, named: bytes = b"") -> None:
        self.named = named
        self.asked: list[OtaAsk] = []
        self.answers: Callable[[OtaAsk], list[bytes]] = lambda ask: [self.sealed(ask.nonce)]
        self.counters = Counters()
        numbers = iter(range(1, 100))
        self.authority = Authority(
            SimpleNamespace(site=SITE, device=DEVICE),
            SimpleNamespace(sid=SID, keys=(b"d" * 32, KEY, TH8)),
            self.counters,
            lambda count: next(numbers).to_bytes(count, "big"),
            self.send,
        )

    def sealed(self, nonce: bytes, key: bytes = KEY, device: str = DEVICE) -> bytes:
        return OtaFresh(nonce, self.named, 0x200 if self.named else 0).seal(key, SITE, device, SID, TH8)

    def send(self, kind: str, payload: bytes) -> bool:
        assert kind == "ask"
        self.asked.append(OtaAsk.decode(payload))
        for frame in self.answers(self.asked[-1]):
            asyncio.get_running_loop().call_soon(self.take, frame)
        return True

    def take(self, frame: bytes) -> None:
        try:
            self.authority.on_answer(frame)
        except WireError as refused:
            self.refused = refused.code

    def is_fresh(self, digest: bytes) -> bool:
        return bool(asyncio.run(self.authority.is_fresh(digest, QUESTIONS)))


@pytest.fixture
def good() -> Bundle:
    return Bundle()


@pytest.fixture
def board(tmp_path: Path) -> HostBoard:
    host = HostBoard(tmp_path, hardware=HARDWARE)
    host.mount()
    return host


def equipped(board: HostBoard, bundle: Bundle, server: Server) -> Terminal:
    terminal = Terminal(board, bundle)
    terminal.agent.authority = server.authority
    terminal.agent.questions = lambda: QUESTIONS
    return terminal


# ---------------------------------------------------------------- freshness


def test_what_the_server_names_is_installed_after_one_question(board: HostBoard, good: Bundle) -> None:
    server = Server(good.digest[:8])
    equipped(board, good, server).update()
    assert [(ask.hardware, ask.running, ask.key_epoch) for ask in server.asked] == [(HARDWARE, IMAGE, 0)]


@pytest.mark.parametrize(
    "attack",
    [
        ("it names nothing", lambda server, ask: [server.sealed(ask.nonce)]),
        ("an answer to another nonce", lambda server, ask: [named(server).sealed(bytes(16))]),
        ("an answer by another key", lambda server, ask: [named(server).sealed(ask.nonce, b"x" * 32)]),
        ("another terminal's answer", lambda server, ask: [named(server).sealed(ask.nonce, device="t-0002")]),
        ("no answer", lambda server, ask: []),
        ("rubbish", lambda server, ask: [b"\xd1", bytes(200)]),
    ],
    ids=lambda attack: attack[0],
)
def test_a_genuine_offer_that_is_not_named_is_refused(
    board: HostBoard, good: Bundle, attack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminal.ota.authority._WAIT_S", 0.05)
    server = Server()
    server.digest = good.digest  # type: ignore[attr-defined]
    server.answers = lambda ask: attack[1](server, ask)
    terminal = equipped(board, good, server)
    terminal.runs_until_reason(states.STALE_OFFER, good.offer)
    assert terminal.requests == []
    assert server.asked


def named(server: Any) -> Server:
    """The same server, naming the bundle on offer."""
    server.named = server.digest[:8]
    found: Server = server
    return found


def test_an_answer_counts_once_and_for_a_short_time(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(good.digest[:8])
    assert server.is_fresh(good.digest)
    assert server.is_fresh(good.digest)
    assert len(server.asked) == 1
    server.named = b""
    monkeypatch.setattr("terminal.ota.authority._VALID_MS", 0)
    assert not server.is_fresh(good.digest)
    recorded = server.sealed(server.asked[0].nonce)
    server.take(recorded)
    assert server.refused == "UNSOLICITED"


# ---------------------------------------------------------------- release keys


def certificate(name: str, epoch: int, root: str = "root") -> bytes:
    return certify(SIGNERS[root], SIGNERS[name].spki, epoch)


def rotation(new: str = "release-2", epoch: int = 2) -> Rotation:
    return Rotation.make(
        SIGNERS["release"], certificate("release", 1), SIGNERS[new], certificate(new, epoch),
        VerifyKey(SIGNERS["root"].spki, 3072),
    )  # fmt: skip


def rotated(server: Server, frame: bytes) -> int:
    """The epoch after a terminal that knows epoch 1 has seen a statement."""
    server.counters["release"] = (1).to_bytes(4, "big")
    try:
        asyncio.run(server.authority.rotate(ROOT, frame))
    except WireError as refused:
        server.refused = refused.code
    return int(server.authority.epoch())


def test_a_rotation_by_root_old_and_new_is_followed() -> None:
    assert rotated(Server(), rotation().encode()) == 2


def forged(**parts: bytes) -> bytes:
    real = rotation()
    fields = {name: getattr(real, name) for name in ("old", "new", "by_old", "by_new")}
    return Rotation(**{**fields, **parts}).encode()


def by(name: str) -> bytes:
    """The claim of the real rotation, signed by another key."""
    from server.wire import aad
    from server.wire.cose import parse_sign1, sign1

    return sign1(SIGNERS[name], parse_sign1(rotation().by_old, 1024).payload, aad.rotation())


@pytest.mark.parametrize(
    "parts",
    [
        ("the root alone", {"by_old": by("root")}),
        ("the old key alone", {"by_new": by("release")}),
        ("a new key of another root", {"new": certificate("release-2", 2, "evil-root")}),
        ("an old key of another root", {"old": certificate("release", 1, "evil-root")}),
        (
            "a server's key",
            {"new": Certificate(SERVER_SIGN, SIGNERS["release-2"].spki, 2).seal(SIGNERS["root"], "")},
        ),
        ("a claim about other keys", {"by_new": rotation("evil-root").by_new}),
    ],
    ids=lambda parts: parts[0],
)
def test_a_rotation_without_one_of_the_three_is_refused(parts: tuple[str, dict[str, bytes]]) -> None:
    assert rotated(Server(), forged(**parts[1])) == 1


def test_a_statement_about_other_epochs_costs_no_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terminal.ota.rotation.rotation_steps", lambda root, frame: pytest.fail("verified"))
    server = Server()
    server.counters["release"] = (2).to_bytes(4, "big")
    asyncio.run(server.authority.rotate(ROOT, rotation().encode()))
    assert server.authority.epoch() == 2


@pytest.mark.parametrize("known", [2, 7])
def test_an_offer_by_an_older_key_or_an_unnamed_newer_one_is_refused(
    board: HostBoard, good: Bundle, known: int
) -> None:
    server = Server(good.digest[:8])
    server.counters["release"] = known.to_bytes(4, "big")
    terminal = equipped(board, good, server)
    terminal.runs_until_reason(states.OLD_KEY, good.offer)
    assert terminal.requests == []


def test_the_first_key_the_root_vouches_for_is_remembered(board: HostBoard, good: Bundle) -> None:
    server = Server(good.digest[:8])
    equipped(board, good, server).update()
    assert server.authority.epoch() == 1


# ---------------------------------------------------------------- words and orders


def test_every_reason_a_terminal_reports_has_words() -> None:
    assert len(words.REASONS) == len(states.REASONS)
    assert len(words.STATES) == len(states.NAMES)
    assert len(words.SLOTS) == len(states.SLOT_NAMES)
    assert words.reason(states.STALE_OFFER).startswith("the offer is not the answer")
    assert words.reason(states.OLD_KEY).startswith("the release key is older")
    assert words.reason(99) == "reason 99 (unknown to this server)"


def test_nothing_is_asked_for_until_orders_are_answered_and_a_moment_ago(
    board: HostBoard, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(board, good)
    looks = waits = 0

    async def sleep_ms(_duration_ms: int) -> None:
        nonlocal waits
        waits += 1
        await asyncio.sleep(0)

    monkeypatch.setattr("terminal.ota.pace.sleep_ms", sleep_ms)

    def traffic() -> tuple[int, int]:
        nonlocal looks
        looks += 1
        return (1, 0) if looks < 12 else (0, 1)  # one order, answered at the twelfth look

    terminal.agent.pace.traffic = traffic
    real, waits_before_asking = terminal.send, []

    def send(kind: str, payload: bytes) -> bool:
        if kind == "get":
            waits_before_asking.append(waits)
        return real(kind, payload)

    terminal.agent._send = send
    terminal.update()
    assert waits_before_asking[0] >= 11 + 5
    assert waits_before_asking[-1] < 12 + 20, "quiet again, and still it waits"


def test_orders_nobody_answers_do_not_keep_a_terminal_from_its_update(
    board: HostBoard, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminal.ota.pace._PAUSE_MS", 20)
    terminal = Terminal(board, good)
    terminal.agent.pace.traffic = lambda: (1, 0)
    terminal.update()
    assert all(request[-1] == 1 for request in terminal.requests), "more than one chunk at once"
