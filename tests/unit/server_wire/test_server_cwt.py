"""An independent COSE library agrees: what the server makes it accepts, what it makes the server accepts."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cwt import COSE, COSEHeaders, COSEKey
from cwt.exceptions import VerifyError
from server_kit import (
    DEVICE,
    FIXTURES,
    MENU,
    SITE,
    Device,
    ManualClock,
    Site,
    an_op,
    op_frame,
    signer,
    verify_key,
)

from server.devices.verify import OpVerifier, Session
from server.releases.bundle import Target, build_bundle, certify
from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_mac0, parse_sign1, verify_mac0, verify_sign1
from server.wire.errors import Refusal
from server.wire.frames import Accept, Hello
from server.wire.keyschedule import SessionKeys
from server.wire.menufile import parse_menu
from server.wire.ops import Reply, encode_op_message

HEADERS = {"sign": {COSEHeaders.ALG: -37}, "mac": {COSEHeaders.ALG: 5}}


def public(spki: bytes) -> Any:
    pem = serialization.load_der_public_key(spki).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return COSEKey.from_pem(pem, alg="PS256", kid=sha256(spki).digest()[:8])


def private(name: str) -> Any:
    pem = (FIXTURES / "keys" / f"{name}.pem").read_bytes()
    return COSEKey.from_pem(pem, alg="PS256", kid=signer(name).kid)


def symmetric(key: bytes, identifier: bytes) -> Any:
    return COSEKey.from_symmetric_key(key, alg="HS256", kid=identifier)


def cwt_open(frame: bytes, key: Any, external_aad: bytes) -> bytes:
    opened: bytes = COSE.new().decode(frame, key, external_aad=external_aad)
    return opened


@pytest.fixture
def established(site: Site) -> tuple[Site, Session, SessionKeys, bytes, bytes]:
    beacon = site.beacons.issue(MENU)
    hello = Device().hello(beacon)
    row = site.handshake.prepare(site.record(), hello, MENU).session
    assert row is not None
    return site, Session(row), SessionKeys(row.k_d2s, row.k_s2d, row.k_resume, row.th8), beacon, hello


def test_cwt_accepts_every_signed_frame_of_the_server(
    established: tuple[Site, Session, SessionKeys, bytes, bytes],
) -> None:
    site, _, _, beacon, hello = established
    server_key = public(site.keystore.server_sign.spki)
    menu = parse_menu((FIXTURES / "menu" / "demo.json").read_text())
    target = Target("qemu-rv32", 0x0102)
    certificate = certify(signer("root"), signer("release").spki)
    bundle = build_bundle({"terminal/app.py": b"pass\n"}, target, signer("release"), certificate)
    frames = [
        (beacon, server_key, aad.beacon(SITE)),
        (hello, public(signer(DEVICE).spki), aad.hello(SITE, DEVICE)),
        (menu.seal(site.keystore.server_sign, SITE), server_key, aad.menu(SITE)),
        (site.keystore.certificate, public(signer("root").spki), aad.certificate(SITE)),
        (certificate, public(signer("root").spki), aad.certificate("")),
        (bundle.offer.manifest_frame, public(signer("release").spki), aad.manifest()),
    ]
    for frame, key, external_aad in frames:
        assert cwt_open(frame, key, external_aad) == parse_sign1(frame, 65536).payload
        with pytest.raises(VerifyError):
            cwt_open(frame, key, external_aad + b"\0")


def test_cwt_accepts_the_accept_and_its_inner_signature(
    established: tuple[Site, Session, SessionKeys, bytes, bytes],
) -> None:
    site, session, keys, _, _ = established
    outer_key = symmetric(keys.server_to_device, Accept.nonce_of(session.row.accept))
    signed = cwt_open(session.row.accept, outer_key, aad.accept(SITE, DEVICE, keys.th8))
    inner_key = public(site.keystore.server_sign.spki)
    payload = cwt_open(signed, inner_key, aad.accept_signed(SITE, DEVICE))
    assert cbor2.loads(payload)[0] == session.row.sid


def test_cwt_accepts_ops_and_replies(established: tuple[Site, Session, SessionKeys, bytes, bytes]) -> None:
    _, session, keys, _, _ = established
    sid = session.row.sid
    frame = op_frame(keys, sid, 1, an_op().encode())
    op_aad, reply_aad = aad.op(SITE, DEVICE, sid, keys.th8), aad.reply(SITE, DEVICE, sid, keys.th8)
    payload = cwt_open(frame, symmetric(keys.device_to_server, sid), op_aad)
    assert payload == encode_op_message(1, an_op().encode())
    reply = Reply(bytes(12), 0, 0, 1, 520, 1, bytes(32))
    sealed = OpVerifier(ManualClock()).seal_reply(session, reply)
    assert cwt_open(sealed, symmetric(keys.server_to_device, sid), reply_aad) == reply.payload()


def test_the_server_accepts_what_cwt_signs() -> None:
    payload = Hello(DEVICE, 1, bytes(16), 1, bytes(32), bytes(256), 1, 1, 0).payload()
    frame = COSE.new().encode_and_sign(
        payload,
        private(DEVICE),
        protected={COSEHeaders.ALG: -37},
        unprotected={COSEHeaders.KID: signer(DEVICE).kid},
        external_aad=aad.hello(SITE, DEVICE),
    )
    assert isinstance(frame, bytes)
    assert verify_sign1(frame, verify_key(DEVICE), aad.hello(SITE, DEVICE), 1024) == payload
    with pytest.raises(Refusal):
        verify_sign1(frame, verify_key(DEVICE), aad.hello(SITE, "t-0002"), 1024)


def test_the_server_accepts_what_cwt_macs() -> None:
    key, sid, payload, external_aad = bytes(range(32)), b"\1\2\3\4", b"\x82\x01\x02", b"\x80"
    frame = COSE.new().encode_and_mac(
        payload,
        symmetric(key, sid),
        protected={COSEHeaders.ALG: 5},
        unprotected={COSEHeaders.KID: sid},
        external_aad=external_aad,
    )
    assert isinstance(frame, bytes)
    parsed = parse_mac0(frame, 4, 1024)
    verify_mac0(parsed, key, mac_prefix(external_aad))
    assert (parsed.identifier, parsed.payload) == (sid, payload)
    assert mac0(key, sid, payload, mac_prefix(external_aad)) == frame
