"""Every envelope the terminal makes is read by an independent COSE library, and the other way round."""

from __future__ import annotations

import os

import cbor2
import cwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from session_peer import identity
from terminal.wire import cose, rsa
from terminal.wire.errors import WireError
from wire_fixtures import load_key, load_spki

SITE, DEVICE, SID, TH8 = "demo", "t-0001", b"\x01\x02\x03\x04", b"12345678"
KEY = bytes(range(32))


def mac_key(key_id: bytes) -> cwt.COSEKey:
    return cwt.COSEKey.new({1: 4, 2: key_id, 3: 5, -1: KEY})


def public_key(name: str, key_id: bytes) -> cwt.COSEKey:
    pem = load_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return cwt.COSEKey.from_pem(pem.decode(), kid=key_id, alg="PS256")


def private_key(name: str, key_id: bytes) -> cwt.COSEKey:
    pem = load_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return cwt.COSEKey.from_pem(pem.decode(), kid=key_id, alg="PS256")


def test_an_independent_library_reads_op_frames() -> None:
    sealer = cose.Sealer(KEY, SITE, DEVICE, SID, TH8)
    op = cbor2.dumps([1, bytes(12), "4", [[1, 2, []]], 1, 520])
    external_aad = cose.aad("op", SITE, DEVICE, SID, TH8)
    for sequence in (1, 2):
        payload = cwt.COSE.new().decode(bytes(sealer.seal(op)), mac_key(SID), external_aad=external_aad)
        assert cbor2.loads(payload) == [sequence, cbor2.loads(op)]


def test_reply_frames_of_an_independent_library_are_opened() -> None:
    sender = cwt.COSE.new()
    values = [bytes(12), 0, 0, 1001, 520, 17, bytes(range(32))]
    frame = sender.encode(
        cbor2.dumps(values),
        mac_key(SID),
        {1: 5},
        {4: SID},
        external_aad=cose.aad("reply", SITE, DEVICE, SID, TH8),
    )
    opener = cose.Opener(KEY, SITE, DEVICE, SID, TH8)
    assert list(opener.open(frame)) == values
    with pytest.raises(WireError, match="BAD_TAG"):
        cose.Opener(bytes(32), SITE, DEVICE, SID, TH8).open(frame)


def test_an_independent_library_verifies_signed_frames() -> None:
    private = identity().private
    external_aad = cose.aad("hello", SITE, DEVICE)
    for payload in (
        b"",
        b"x",
        os.urandom(23),
        os.urandom(24),
        os.urandom(255),
        os.urandom(256),
        os.urandom(600),
    ):
        steps = cose.sign1_sign_steps(private, private.public.kid, external_aad, payload, os.urandom)
        key = public_key(DEVICE, private.public.kid)
        assert cwt.COSE.new().decode(rsa.run_now(steps), key, external_aad=external_aad) == payload


def test_signed_frames_of_an_independent_library_verify() -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    external_aad = cose.aad("menu", SITE, "")
    for payload in (b"x", os.urandom(300), os.urandom(65_000)):
        frame = cwt.COSE.new().encode(
            payload,
            private_key("server-sign", public.kid),
            {1: -37},
            {4: public.kid},
            external_aad=external_aad,
        )
        kid, read, signature = cose.sign1_parse(frame)
        assert (kid, bytes(read)) == (public.kid, payload)
        assert rsa.run_now(cose.sign1_verify_steps(public, external_aad, read, signature))
        assert not rsa.run_now(cose.sign1_verify_steps(public, cose.aad("menu", "x", ""), read, signature))


def test_a_menu_in_pieces_verifies_like_a_whole_one() -> None:
    frame = cwt.COSE.new().encode(
        payload := os.urandom(3000),
        private_key("server-sign", load_kid := rsa.PublicKey.from_spki(load_spki("server-sign")).kid),
        {1: -37},
        {4: load_kid},
        external_aad=cose.aad("menu", SITE, ""),
    )
    kid, start, size = cose.sign1_head(frame[:32], len(frame), 384)
    assert (kid, frame[start : start + size]) == (load_kid, payload)
    digest = cose.sign1_hash(cose.aad("menu", SITE, ""), size)
    for position in range(start, start + size, 100):
        digest.update(frame[position : min(position + 100, start + size)])
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    assert rsa.run_now(rsa.verify_pss_steps(public, digest.digest(), frame[-384:]))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_hmac_and_hkdf_are_the_standard_ones(size: int) -> None:
    import hmac

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key, message = os.urandom(size), os.urandom(100)
    assert cose.hmac_sha256(key, message) == hmac.digest(key, message, "sha256")
    salt = os.urandom(32)
    mine = cose.hkdf_expand(cose.hkdf_extract(salt, message), b"info", 80)
    assert mine == HKDF(hashes.SHA256(), 80, salt, b"info").derive(message)
