"""The server's codecs against the byte-exact vectors."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from server_kit import (
    DEVICE,
    FIXTURES,
    NOW,
    SITE,
    ManualClock,
    signer,
    vector,
    vector_bytes,
    vectors,
    verify_key,
)

from server.devices.keyfiles import parse_pem
from server.devices.records import SessionRow
from server.devices.verify import NEEDS_NEW_SESSION, OpVerifier, Session
from server.wire import aad
from server.wire.cose import mac_prefix, parse_mac0, parse_sign1, to_be_signed, verify_mac0, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import (
    RELEASE,
    SERVER_SIGN,
    Accept,
    Beacon,
    Certificate,
    Hello,
    Hint,
    Presence,
)
from server.wire.freshness import OtaAsk, OtaFresh
from server.wire.keyschedule import SessionKeys, derive, extract, transcript_hash
from server.wire.menufile import parse_menu
from server.wire.menus import Menu, MenuChunk, join, split
from server.wire.notices import NOTICE_MAX_BYTES, Notice
from server.wire.ops import Reply
from server.wire.requests import BillClaim
from server.wire.rotation import Rotation
from server.wire.rsa import oaep_decrypt
from server.wire.updates import Manifest, Offer, OtaChunk, OtaGet, OtaState

INPUTS = vectors()["inputs"]
SCHEDULE = {name: bytes.fromhex(value) for name, value in vectors()["key_schedule"].items()}
KEYS = SessionKeys(SCHEDULE["d2s"], SCHEDULE["s2d"], SCHEDULE["resume"], SCHEDULE["th8"])
SID = bytes.fromhex(INPUTS["sid"])
REPLY_PREFIX = mac_prefix(aad.reply(SITE, DEVICE, SID, KEYS.th8))


def fresh_session() -> Session:
    return Session(
        SessionRow(
            SITE,
            DEVICE,
            SID,
            KEYS.device_to_server,
            KEYS.server_to_device,
            KEYS.resume,
            KEYS.th8,
            NOW,
            NOW + 43200,
            bytes(32),
            b"",
            1,
        )
    )


def open_op(frame: bytes) -> Any:
    return OpVerifier(ManualClock()).open(fresh_session(), frame)


def open_reply(frame: bytes) -> Reply:
    parsed = parse_mac0(frame, 4, 256)
    verify_mac0(parsed, KEYS.server_to_device, REPLY_PREFIX)
    return Reply.from_payload(parsed.payload)


def open_notice(frame: bytes) -> Notice:
    parsed = parse_mac0(frame, 4, NOTICE_MAX_BYTES)
    verify_mac0(parsed, KEYS.server_to_device, mac_prefix(aad.notice(SITE, DEVICE, SID, KEYS.th8)))
    return Notice.from_payload(parsed.payload)[1]


def open_accept(frame: bytes) -> Accept:
    return Accept.open(frame, verify_key("server-sign"), KEYS.server_to_device, SITE, DEVICE, KEYS.th8)


OPENERS: dict[str, Callable[[bytes], Any]] = {
    "cert-frame": lambda frame: Certificate.open(frame, verify_key("root"), SITE, SERVER_SIGN),
    "beacon-frame": lambda frame: Beacon.open(frame, verify_key("root"), SITE),
    "hello-frame": lambda frame: Hello.open(frame, verify_key(DEVICE), SITE, DEVICE),
    "accept-frame": open_accept,
    "op-frame": open_op,
    "reply-frame": open_reply,
    "menu-frame": lambda frame: Menu.open(frame, verify_key("server-sign"), SITE),
    "menu-chunk": MenuChunk.decode,
    "hint": Hint.decode,
    "presence": Presence.decode,
    "offer": lambda frame: Offer.decode(frame).open(verify_key("root")),
    "manifest-frame": lambda frame: Offer(frame, vector_bytes("cert-release")).open(verify_key("root")),
    "ota-get": OtaGet.decode,
    "ota-chunk": OtaChunk.decode,
    "ota-state": OtaState.decode,
    "notice-frame": open_notice,
    "ota-ask": OtaAsk.decode,
    "ota-fresh-frame": lambda frame: OtaFresh.open(frame, KEYS.server_to_device, SITE, DEVICE, SID, KEYS.th8),
    "ota-rotation": lambda frame: Rotation.decode(frame).open(verify_key("root")),
    "bill-seal": lambda frame: BillClaim.open(frame, verify_key(DEVICE), SITE, DEVICE),
}
EXPECTED_CODES = {
    "mac": {RefusalCode.BAD_MAC},
    "signature": {RefusalCode.BAD_SIGNATURE},
    "binding": {RefusalCode.UNKNOWN_SESSION},
    "trailing": {RefusalCode.TRAILING_BYTES, RefusalCode.BAD_ENVELOPE},
    "size": {RefusalCode.TOO_LARGE, RefusalCode.BAD_SHAPE},
}


@pytest.mark.parametrize("name", [frame["name"] for frame in vectors()["frames"] if frame["kind"] in OPENERS])
def test_every_good_frame_of_the_vectors_is_accepted(name: str) -> None:
    frame = vector(name)
    if name.startswith("cert-release"):
        opened = Certificate.open(vector_bytes(name), verify_key("root"), "", RELEASE)
        assert opened.spki == signer(name.removeprefix("cert-")).spki
    else:
        assert OPENERS[frame["kind"]](vector_bytes(name)) is not None


@pytest.mark.parametrize(
    "hostile",
    [case for case in vectors()["negative"] if case["kind"] in OPENERS],
    ids=lambda hostile: hostile["name"],
)
def test_every_hostile_frame_of_the_vectors_is_refused(hostile: dict[str, Any]) -> None:
    frame = bytes.fromhex(hostile["hex"])
    if "reject" in hostile:  # authentic, with a readable op-id: it is answered, not dropped
        opened = open_op(frame)
        assert opened.op.reject == hostile["reject"]
        assert opened.op.op_id.hex() == hostile["op_id"]
        return
    with pytest.raises(Refusal) as refused:
        OPENERS[hostile["kind"]](frame)
    assert refused.value.code in EXPECTED_CODES.get(hostile["reason"], {refused.value.code})
    assert (hostile.get("hint") == 17) == (refused.value.code in NEEDS_NEW_SESSION)


def test_the_key_schedule_is_the_vectors() -> None:
    nonces = bytes.fromhex(INPUTS["nonce_d"]), bytes.fromhex(INPUTS["nonce_s"])
    secret = bytes.fromhex(INPUTS["secret"])
    transcript = transcript_hash(vector_bytes("beacon"), vector_bytes("hello"))
    assert transcript == SCHEDULE["th"]
    assert extract(nonces[0] + nonces[1], secret) == SCHEDULE["prk"]
    assert derive(secret, *nonces, SITE, DEVICE, transcript) == KEYS


def test_the_session_secret_of_the_vectors_decrypts() -> None:
    path = FIXTURES / "keys" / "server-decrypt.pem"
    key = parse_pem(path.read_bytes(), 2048, path, "")
    hello = Hello.open(vector_bytes("hello"), verify_key(DEVICE), SITE, DEVICE)
    assert oaep_decrypt(key, hello.secret, aad.oaep_label(SITE, DEVICE)).hex() == INPUTS["secret"]
    assert oaep_decrypt(key, hello.secret, aad.oaep_label(SITE, "t-0002")) is None


REQUESTS = ["change", "cancel", "call-waiter", "bill-request", "bill-close"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_encodes_to_the_vector(name: str) -> None:
    expected = vector(name)
    opened = open_op(vector_bytes(name))
    assert opened.op.reject is None
    assert opened.op.encode() == opened.op_bytes == bytes.fromhex(expected["op"])
    assert opened.op.total_minor == expected["total_minor"]


@pytest.mark.parametrize("name", ["order-1-line", "order-3-lines", "order-6-lines"])
def test_an_order_encodes_to_the_vector(name: str) -> None:
    expected = vector(name)
    opened = open_op(vector_bytes(name))
    assert opened.op.encode() == opened.op_bytes == bytes.fromhex(expected["op"])
    assert opened.op_hash.hex() == expected["op_hash"]
    assert [[line.item, line.quantity, list(line.modifiers)] for line in opened.op.lines] == expected["lines"]
    assert opened.op.total_minor == expected["total_minor"]


@pytest.mark.parametrize(
    "name", [frame["name"] for frame in vectors()["frames"] if frame["kind"] == "reply-frame"]
)
def test_a_reply_seals_to_the_vector(name: str) -> None:
    reply = open_reply(vector_bytes(name))
    assert OpVerifier(ManualClock()).seal_reply(fresh_session(), reply) == vector_bytes(name)


def test_the_demo_menu_encodes_to_the_vector() -> None:
    menu = parse_menu((FIXTURES / "menu" / "demo.json").read_text())
    frame = vector_bytes("menu")
    assert menu.payload() == parse_sign1(frame, 65536).payload
    chunks = split(frame, menu.version)
    assert [chunk.encode() for chunk in chunks] == [
        vector_bytes(f"menu-chunk-{i}") for i in range(len(chunks))
    ]
    assert join(reversed(chunks)) == frame


@pytest.mark.parametrize(
    ("name", "key", "external_aad"),
    [
        ("beacon", "server-sign", aad.beacon(SITE)),
        ("menu", "server-sign", aad.menu(SITE)),
        ("hello", DEVICE, aad.hello(SITE, DEVICE)),
        ("accept-signed", "server-sign", aad.accept_signed(SITE, DEVICE)),
        ("manifest", "release", aad.manifest()),
        ("cert-server-sign", "root", aad.certificate(SITE)),
        ("cert-release", "root", aad.certificate("")),
    ],
)
def test_signed_frames_bind_the_aad_of_the_vectors(name: str, key: str, external_aad: bytes) -> None:
    expected = vector(name)
    assert external_aad.hex() == expected["aad"]
    payload = verify_sign1(vector_bytes(name), verify_key(key), external_aad, 65536)
    assert payload.hex() == expected["payload"]
    assert to_be_signed(payload, external_aad).startswith(b"\x84\x6aSignature1")


def test_plain_frames_encode_to_the_vectors() -> None:
    decoders = {
        "hint": Hint,
        "presence": Presence,
        "ota-get": OtaGet,
        "ota-chunk": OtaChunk,
        "ota-state": OtaState,
        "ota-ask": OtaAsk,
        "ota-rotation": Rotation,
    }
    frames = [frame for frame in vectors()["frames"] if frame["kind"] in decoders]
    assert len(frames) >= 12
    for frame in frames:
        raw = bytes.fromhex(frame["hex"])
        assert decoders[frame["kind"]].decode(raw).encode() == raw


def test_the_manifest_encodes_to_the_vector() -> None:
    payload = parse_sign1(vector_bytes("manifest"), 8192).payload
    manifest = Manifest.from_payload(payload)
    assert manifest.payload() == payload
    bundle = bytes.fromhex(vector("manifest")["bundle"])
    assert sha256(bundle[: manifest.files[0].size]).digest() == manifest.files[0].hash
