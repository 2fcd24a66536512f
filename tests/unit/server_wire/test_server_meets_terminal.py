"""The server's half against the terminal's own modules: they share nothing but the contract."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from server_kit import DEVICE, FIXTURES, NOW, SITE, TABLE, ManualClock, SeededEntropy, Site, signer

from server.devices.records import MenuReference
from server.devices.verify import OpVerifier, Session
from server.releases.bundle import Target, build_bundle, certify
from server.releases.serving import Releases
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Presence, hello_rate_limited, hello_refused, unknown_session
from server.wire.menufile import parse_menu
from server.wire.menus import split
from server.wire.ops import Line, RejectCode, Reply, Status
from server.wire.updates import OtaGet, OtaState

sys.path.insert(0, str(FIXTURES.parent / "firmware"))

from terminal import session as terminal_session
from terminal.menu import MenuStore
from terminal.wire import cose as terminal_cose
from terminal.wire import frames as terminal_frames
from terminal.wire import keys as terminal_keys
from terminal.wire import rsa as terminal_rsa
from terminal.wire.errors import WireError

OP_ID = bytes(range(12))
LINES = [(1, 2, []), (3, 1, [101])]


class Counters:
    """The terminal's persistent counters, in memory."""

    def __init__(self) -> None:
        self.high_mark, self.handshake = (0, 0), 0
        self.values: dict[str, bytes] = {}

    def beacon(self) -> tuple[int, int]:
        return self.high_mark

    def store_beacon(self, epoch: int, counter: int) -> None:
        self.high_mark = (epoch, counter)

    def next_handshake(self) -> int:
        self.handshake += 1
        return self.handshake

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


def terminal_identity() -> Any:
    pem = (FIXTURES / "keys" / f"{DEVICE}.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, RSAPrivateKey)
    private, public = key.private_numbers(), key.public_key().public_numbers()
    numbers = (public.n, public.e, private.p, private.q, private.dmp1, private.dmq1, private.iqmp)
    own = terminal_rsa.PrivateKey.from_parts(*numbers)
    root = signer("root").spki
    return terminal_keys.Identity(SITE, DEVICE, TABLE, "password", "127.0.0.1", 1883, root, own)


@dataclass
class Pair:
    """A site and a terminal with a beacon between them."""

    site: Site
    terminal: Any
    menu_frame: bytes
    menu: MenuReference

    def hear_beacon(self) -> None:
        self.terminal.on_beacon(self.site.beacons.issue(self.menu))

    def hello(self) -> bytes:
        frame: bytes = terminal_rsa.run_now(self.terminal.hello_steps(self.menu.version, 0))
        return bytes(frame)

    def answer(self, frame: bytes) -> str:
        kind: str = terminal_rsa.run_now(self.terminal.on_hello_answer(frame)).kind
        return kind

    def establish(self) -> Session:
        self.hear_beacon()
        row = self.site.handshake.prepare(self.site.record(), self.hello(), self.menu).session
        assert row is not None
        assert self.answer(row.accept) == "established"
        return Session(row)


@pytest.fixture
def pair(site: Site) -> Pair:
    menu = parse_menu((FIXTURES / "menu" / "demo.json").read_text())
    frame = menu.seal(site.keystore.server_sign, SITE)
    root = terminal_rsa.PublicKey.from_spki(signer("root").spki)
    random = SeededEntropy(b"terminal").random
    terminal = terminal_session.Session(terminal_identity(), root, Counters(), random, 0x0100)
    return Pair(site, terminal, frame, MenuReference(menu.version, sha256(frame).digest()))


@pytest.fixture
def verifier() -> OpVerifier:
    return OpVerifier(ManualClock())


def test_the_terminals_handshake_and_order_are_understood(pair: Pair, verifier: OpVerifier) -> None:
    session = pair.establish()
    assert pair.terminal.accept.table == TABLE
    assert pair.terminal.accept.menu_hash == pair.menu.hash
    op = terminal_frames.encode_order(OP_ID, TABLE, LINES, pair.menu.version, 970)
    for seq in (1, 2, 3):
        opened = verifier.open(session, bytes(pair.terminal.seal(op)))
        assert (opened.seq, opened.duplicate, opened.op.reject) == (seq, False, None)
        assert opened.op.lines == (Line(1, 2), Line(3, 1, (101,)))
        assert (opened.op.op_id, opened.op.table, opened.op.total_minor) == (OP_ID, TABLE, 970)
        assert opened.op_hash == sha256(op).digest()


@pytest.mark.parametrize("status", list(Status))
def test_the_terminal_understands_every_reply(pair: Pair, verifier: OpVerifier, status: Status) -> None:
    session = pair.establish()
    reply = Reply(OP_ID, status, RejectCode.MALFORMED, 17, 0xFFFF_FFFF, 1 << 40, bytes(range(32)))
    opened = pair.terminal.open(verifier.seal_reply(session, reply))
    assert tuple(bytes(value) if isinstance(value, memoryview) else value for value in opened) == (
        OP_ID,
        status,
        RejectCode.MALFORMED,
        17,
        0xFFFF_FFFF,
        1 << 40,
        bytes(range(32)),
    )


def test_a_new_handshake_ends_the_old_session_on_both_sides(pair: Pair, verifier: OpVerifier) -> None:
    old = pair.establish()
    op = terminal_frames.encode_order(OP_ID, TABLE, LINES, pair.menu.version, 970)
    old_frame = bytes(pair.terminal.seal(op))
    new = pair.establish()
    with pytest.raises(Refusal) as refused:
        verifier.open(new, old_frame)
    assert refused.value.code == RefusalCode.UNKNOWN_SESSION
    with pytest.raises(WireError):
        pair.terminal.open(verifier.seal_reply(old, Reply(OP_ID, 0, 0, 1, 970, 1, bytes(32))))
    assert verifier.open(new, bytes(pair.terminal.seal(op))).op.op_id == OP_ID


def test_the_terminal_understands_the_hints(pair: Pair) -> None:
    pair.hear_beacon()
    hello = pair.hello()
    assert pair.answer(hello_rate_limited(hello, 1500)) == "retry"
    assert pair.answer(hello_refused(hello)) == "refused"
    session = pair.establish()
    assert pair.terminal.on_hint(unknown_session(session.row.sid), 0)
    assert pair.terminal.needs_rekey()


def test_the_terminal_stores_the_servers_menu(pair: Pair, tmp_path: Path) -> None:
    pair.establish()
    key = pair.terminal.site.server_key

    def verify(kid: bytes, digest: bytes, signature: bytes) -> Any:
        assert bytes(kid) == key.kid
        return (yield from terminal_rsa.verify_pss_steps(key, digest, signature))

    store = MenuStore(str(tmp_path), SITE, verify)
    chunks = split(pair.menu_frame, pair.menu.version)
    assert store.begin(pair.menu.version, pair.menu.hash, len(chunks))
    for chunk in chunks:
        received = terminal_frames.parse_menu_chunk(chunk.encode())
        store.chunk(received.index, bytes(received.data))
    assert terminal_rsa.run_now(store.finish_steps()).version == pair.menu.version
    menu = parse_menu((FIXTURES / "menu" / "demo.json").read_text())
    for item in menu.items:
        stored = store.item(item.id)
        assert (stored.name, stored.price, tuple(stored.groups)) == (item.name, item.price_minor, item.groups)


def test_the_terminal_understands_offer_and_chunks(pair: Pair) -> None:
    certificate = certify(signer("root"), signer("release").spki)
    files = {"terminal/app.py": b"pass\n" * 900, "assets/logo.bin": bytes(3000)}
    bundle = build_bundle(files, Target("qemu-rv32", 0x0200), signer("release"), certificate, 1024)
    releases = Releases([bundle])
    offer = terminal_frames.parse_offer(releases.offers()[0].offer_frame)
    root = terminal_rsa.PublicKey.from_spki(signer("root").spki)
    steps = terminal_keys.certificate_steps(root, offer.certificate, terminal_keys.RELEASE, "")
    key = terminal_rsa.run_now(steps).public
    _, payload, signature = terminal_cose.sign1_parse(offer.manifest)
    binding = terminal_cose.aad("manifest", "", "")
    assert terminal_rsa.run_now(terminal_cose.sign1_verify_steps(key, binding, payload, signature))
    manifest = terminal_frames.parse_manifest(payload)
    assert [path for path, _, _ in manifest.files] == list(files)
    ref, data = sha256(offer.manifest).digest()[:8], b""
    served = releases.find(ref)
    assert served is not None
    for chunk in served.answer(OtaGet.decode(bytes(terminal_frames.encode_ota_get(ref, 1, 0, 16)))):
        data += bytes(terminal_frames.parse_ota_chunk(chunk.encode()).data)
    assert data == b"".join(files.values())


def test_the_terminals_reports_are_understood() -> None:
    presence = bytes(terminal_frames.encode_presence(1, 0x0100, 7, 3))
    assert Presence.decode(presence) == Presence(True, 0x0100, 7, 3)
    state = bytes(terminal_frames.encode_ota_state(0x0100, 2, 1, 4096, 9))
    assert OtaState.decode(state) == OtaState(0x0100, 2, 1, 4096, 9, None)
    for ref in (b"", b"six---", b"eight---"):
        state = bytes(terminal_frames.encode_ota_state(0x0100, 2, 1, 4096, 9, ref))
        assert OtaState.decode(state) == OtaState(0x0100, 2, 1, 4096, 9, ref)


def test_the_terminal_refuses_an_older_beacon(pair: Pair) -> None:
    older = pair.site.beacons.issue(pair.menu)
    pair.establish()
    with pytest.raises(WireError):
        pair.terminal.on_beacon(older)
    assert pair.terminal.site.time == NOW
