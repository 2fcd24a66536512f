"""Threat rows of docs/protocol.md that wire and keys alone must withstand, over all kinds of frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from server_kit import DEVICE, FIXTURES, SITE, signer, vector, vector_bytes, vectors, verify_key

from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_mac0, sign1, verify_mac0, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import RELEASE, SERVER_SIGN, Accept, Beacon, Certificate, Hello
from server.wire.menus import Menu, MenuChunk, join, split
from server.wire.ops import Reply
from server.wire.rsa import VerifyKey
from server.wire.updates import Offer

SCHEDULE = {name: bytes.fromhex(value) for name, value in vectors()["key_schedule"].items()}
SID = bytes.fromhex(vectors()["inputs"]["sid"])
SERVER, ROOT = verify_key("server-sign"), verify_key("root")


def open_reply(frame: bytes) -> Reply:
    parsed = parse_mac0(frame, 4, 256)
    if parsed.identifier != SID:
        raise Refusal(RefusalCode.UNKNOWN_SESSION)
    verify_mac0(parsed, SCHEDULE["s2d"], mac_prefix(aad.reply(SITE, DEVICE, SID, SCHEDULE["th8"])))
    return Reply.from_payload(parsed.payload)


def open_accept(frame: bytes) -> Accept:
    return Accept.open(frame, SERVER, SCHEDULE["s2d"], SITE, DEVICE, SCHEDULE["th8"])


OPENERS: dict[str, Callable[[bytes], Any]] = {
    "cert-server-sign": lambda frame: Certificate.open(frame, ROOT, SITE, SERVER_SIGN),
    "cert-release": lambda frame: Certificate.open(frame, ROOT, "", RELEASE),
    "beacon": lambda frame: Beacon.open(frame, ROOT, SITE),
    "hello": lambda frame: Hello.open(frame, verify_key(DEVICE), SITE, DEVICE),
    "accept": open_accept,
    "reply-committed": open_reply,
    "offer": lambda frame: Offer.decode(frame).open(ROOT),
}


def refusal_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.code


@pytest.mark.parametrize("name", sorted(OPENERS))
def test_a_bit_flipped_in_any_byte_of_any_frame_is_refused(name: str) -> None:
    good = vector_bytes(name)
    assert OPENERS[name](good) is not None
    for at in range(len(good)):
        flipped = bytearray(good)
        flipped[at] ^= 1 << (at % 8)
        assert refusal_of(lambda bad=bytes(flipped): OPENERS[name](bad)), at  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(OPENERS))
def test_a_frame_cut_off_or_continued_anywhere_is_refused(name: str) -> None:
    good = vector_bytes(name)
    for length in range(len(good)):
        assert refusal_of(lambda bad=good[:length]: OPENERS[name](bad)), length  # type: ignore[misc]
    assert refusal_of(lambda: OPENERS[name](good + b"\0"))


def test_a_flipped_bit_in_any_menu_chunk_breaks_the_menu() -> None:
    frame = vector_bytes("menu")
    assert Menu.open(frame, SERVER, SITE).items
    for at in range(0, len(frame), 37):
        flipped = bytearray(frame)
        flipped[at] ^= 0x10
        chunks = [MenuChunk.decode(chunk.encode()) for chunk in split(bytes(flipped), 1)]
        assert refusal_of(lambda bad=chunks: Menu.open(join(bad), SERVER, SITE))  # type: ignore[misc]


def test_a_signature_for_one_purpose_serves_no_other() -> None:
    """Every pair of purposes under the same key: what was signed as one is refused as the other."""
    purposes = {
        "beacon": aad.beacon(SITE),
        "menu": aad.menu(SITE),
        "accept": aad.accept_signed(SITE, DEVICE),
        "hello": aad.hello(SITE, DEVICE),
        "certificate": aad.certificate(SITE),
        "release certificate": aad.certificate(""),
        "manifest": aad.manifest(),
        "other site": aad.beacon("other"),
        "other device": aad.accept_signed(SITE, "t-0002"),
    }
    assert len(set(purposes.values())) == len(purposes)
    for signed_as, binding in purposes.items():
        frame = sign1(signer("server-sign"), b"\x80", binding)
        for read_as, expected in purposes.items():
            if signed_as == read_as:
                assert verify_sign1(frame, SERVER, expected, 1024) == b"\x80"
            else:
                code = refusal_of(lambda bad=frame, want=expected: verify_sign1(bad, SERVER, want, 1024))  # type: ignore[misc]
                assert code == RefusalCode.BAD_SIGNATURE


def test_a_mac_for_one_direction_or_binding_serves_no_other() -> None:
    th8 = SCHEDULE["th8"]
    bindings = [
        aad.op(SITE, DEVICE, SID, th8),
        aad.reply(SITE, DEVICE, SID, th8),
        aad.accept(SITE, DEVICE, th8),
        aad.op(SITE, "t-0002", SID, th8),
        aad.op("other", DEVICE, SID, th8),
        aad.op(SITE, DEVICE, bytes(4), th8),
        aad.op(SITE, DEVICE, SID, bytes(8)),
    ]
    for made_for in bindings:
        parsed = parse_mac0(mac0(bytes(32), SID, b"\x80", mac_prefix(made_for)), 4, 1024)
        for read_as in bindings:
            if made_for != read_as:
                code = refusal_of(lambda p=parsed, want=read_as: verify_mac0(p, bytes(32), mac_prefix(want)))  # type: ignore[misc]
                assert code == RefusalCode.BAD_MAC


def test_a_false_server_with_its_own_certificate_is_refused() -> None:
    beacon, _ = Beacon.open(vector_bytes("beacon"), ROOT, SITE)
    own = Certificate(SERVER_SIGN, signer("evil-root").spki, 1).seal(signer("evil-root"), SITE)
    forged = replace(beacon, certificate=own).seal(signer("evil-root"))
    assert refusal_of(lambda: Beacon.open(forged, ROOT, SITE)) == RefusalCode.WRONG_KEY
    borrowed = beacon.seal(signer("evil-root"))  # the true certificate, another key
    assert refusal_of(lambda: Beacon.open(borrowed, ROOT, SITE)) == RefusalCode.WRONG_KEY


def test_a_stolen_server_key_cannot_claim_a_later_epoch() -> None:
    beacon, _ = Beacon.open(vector_bytes("beacon"), ROOT, SITE)
    forged = replace(beacon, epoch=beacon.epoch + 1).seal(signer("server-sign"))
    assert refusal_of(lambda: Beacon.open(forged, ROOT, SITE)) == RefusalCode.BAD_CERTIFICATE


def test_a_release_key_cannot_speak_as_a_server() -> None:
    beacon, _ = Beacon.open(vector_bytes("beacon"), ROOT, SITE)
    for site in (SITE, ""):
        certificate = Certificate(RELEASE, signer("release").spki, 1).seal(signer("root"), site)
        forged = replace(beacon, certificate=certificate).seal(signer("release"))
        code = refusal_of(lambda bad=forged: Beacon.open(bad, ROOT, SITE))  # type: ignore[misc]
        assert code in {RefusalCode.BAD_SIGNATURE, RefusalCode.BAD_CERTIFICATE}


def test_a_certificate_of_another_site_is_refused() -> None:
    elsewhere = Certificate(SERVER_SIGN, signer("server-sign").spki, 1).seal(signer("root"), "other")
    code = refusal_of(lambda: Certificate.open(elsewhere, ROOT, SITE, SERVER_SIGN))
    assert code == RefusalCode.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another algorithm", lambda f: f.replace(b"\x44\xa1\x01\x38\x24", b"\x44\xa1\x01\x38\x25", 1)),
        ("no protected header", lambda f: f.replace(b"\x44\xa1\x01\x38\x24", b"\x40", 1)),
        ("no kid", lambda f: f[:7] + b"\xa0" + f[18:]),
        ("untagged", lambda f: f[1:]),
        ("another tag", lambda f: b"\xd1" + f[1:]),
        ("two tags", lambda f: b"\xd2" + f),
        ("an indefinite array", lambda f: f[:1] + b"\x9f" + f[2:] + b"\xff"),
        ("a head that is not the shortest", lambda f: f[:1] + b"\x98\x04" + f[2:]),
    ],
)
def test_no_other_envelope_than_the_one_is_read(what: str, change: Callable[[bytes], bytes]) -> None:
    changed = change(vector_bytes("hello"))
    assert changed != vector_bytes("hello"), what
    assert refusal_of(lambda: OPENERS["hello"](changed)) == RefusalCode.BAD_ENVELOPE


def test_oversized_frames_are_refused_before_they_are_read() -> None:
    limits = {"hello": 1024, "beacon": 2048, "accept": 1024, "reply-committed": 256, "offer": 8192}
    for name, limit in limits.items():
        padded = vector_bytes(name).ljust(limit + 1, b"\0")
        assert refusal_of(lambda n=name, bad=padded: OPENERS[n](bad)) == RefusalCode.TOO_LARGE  # type: ignore[misc]


def test_the_hash_chain_of_the_vectors_is_the_documented_one() -> None:
    """chain = SHA-256(chain || SHA-256(op) || status || total); the server's ledger computes the same."""
    op_hash = bytes.fromhex(vector("order-1-line")["op_hash"])
    link = vectors()["chains"][0]
    joined = bytes.fromhex(link["before"]) + op_hash + bytes([link["status"]])
    assert sha256(joined + link["total"].to_bytes(4, "big")).hexdigest() == link["after"]


def test_signatures_of_the_wrong_padding_are_refused() -> None:
    key = serialization.load_pem_private_key((FIXTURES / "keys" / "t-0001.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    message, sha = b"message", hashes.SHA256()
    paddings = [
        padding.PSS(padding.MGF1(sha), 20),
        padding.PSS(padding.MGF1(sha), 0),
        padding.PSS(padding.MGF1(sha), padding.PSS.MAX_LENGTH),
        padding.PSS(padding.MGF1(hashes.SHA1()), 32),
        padding.PKCS1v15(),
    ]
    verify = verify_key(DEVICE).verify
    verify(key.sign(message, padding.PSS(padding.MGF1(sha), 32), sha), message)
    for wrong in paddings:
        signature = key.sign(message, wrong, sha)
        assert refusal_of(lambda bad=signature: verify(bad, message)) == RefusalCode.BAD_SIGNATURE  # type: ignore[misc]
    modulus = key.public_key().public_numbers().n
    for raw in (0, 1, modulus - 1, modulus):
        number = raw.to_bytes(256, "big")
        assert refusal_of(lambda bad=number: verify(bad, message)) == RefusalCode.BAD_SIGNATURE  # type: ignore[misc]
    good = int.from_bytes(key.sign(message, padding.PSS(padding.MGF1(sha), 32), sha), "big")
    if good + modulus < 1 << 2048:
        beyond = (good + modulus).to_bytes(256, "big")
        assert refusal_of(lambda: verify(beyond, message)) == RefusalCode.BAD_SIGNATURE


@pytest.mark.parametrize("bits", [2048, 3072])
def test_public_keys_of_another_form_are_refused(bits: int) -> None:
    good = signer("t-0001" if bits == 2048 else "root").spki
    VerifyKey(good, bits)
    weak = good[:-1] + b"\x03"  # e = 65539
    for bad in (good[:-1], good + b"\0", bytes(len(good)), weak, b"\x30" * len(good), b""):
        assert refusal_of(lambda spki=bad: VerifyKey(spki, bits)) == RefusalCode.BAD_KEY  # type: ignore[misc]
