"""RSA on plain integers agrees with an independent library and refuses what a bad padding would forge."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from terminal.wire import rsa
from terminal.wire.errors import WireError
from wire_fixtures import load_key, load_spki

MESSAGE = b"two espressi, table 4"
DIGEST = hashlib.sha256(MESSAGE).digest()
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


@pytest.fixture(scope="module")
def server() -> RSAPrivateKey:
    return load_key("server-sign")


@pytest.fixture(scope="module")
def device() -> RSAPrivateKey:
    return load_key("t-0001")


def terminal_key(key: RSAPrivateKey) -> rsa.PrivateKey:
    numbers = key.private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    return rsa.PrivateKey.from_parts(n, e, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)


def verifies(public: rsa.PublicKey, signature: bytes, digest: bytes = DIGEST) -> bool:
    verdict: bool = rsa.run_now(rsa.verify_pss_steps(public, digest, signature))
    return verdict


@pytest.mark.parametrize("name", ["server-sign", "t-0001"])
def test_a_signature_of_the_library_verifies(name: str) -> None:
    public = rsa.PublicKey.from_spki(load_spki(name))
    assert verifies(public, load_key(name).sign(MESSAGE, PSS, hashes.SHA256()))


def test_the_library_verifies_a_signature_of_the_terminal(device: RSAPrivateKey) -> None:
    private = terminal_key(device)
    for _ in range(5):
        signature = rsa.run_now(rsa.sign_pss_steps(private, DIGEST, os.urandom))
        device.public_key().verify(signature, MESSAGE, PSS, hashes.SHA256())
        with pytest.raises(InvalidSignature):
            device.public_key().verify(signature, MESSAGE + b"!", PSS, hashes.SHA256())


def test_the_library_decrypts_what_the_terminal_encrypts() -> None:
    label = b"a label"
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
    public = rsa.PublicKey.from_spki(load_spki("server-decrypt"))
    for secret in (bytes(32), os.urandom(32), b"", os.urandom(190)):
        ciphertext = rsa.run_now(rsa.oaep_encrypt_steps(public, secret, label, os.urandom))
        assert load_key("server-decrypt").decrypt(ciphertext, scheme) == secret
    with pytest.raises(WireError, match="OUT_OF_RANGE"):
        rsa.run_now(rsa.oaep_encrypt_steps(public, bytes(191), label, os.urandom))


@pytest.mark.parametrize("salt_bytes", [0, 20, 31, 33, 64, 350])
def test_a_salt_of_another_length_is_refused(server: RSAPrivateKey, salt_bytes: int) -> None:
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt_bytes)
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    assert not verifies(public, server.sign(MESSAGE, scheme, hashes.SHA256()))


def test_other_hashes_and_schemes_are_refused(server: RSAPrivateKey) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    sha1_mask = padding.PSS(padding.MGF1(hashes.SHA1()), 32)
    assert not verifies(public, server.sign(MESSAGE, sha1_mask, hashes.SHA256()))
    assert not verifies(public, server.sign(MESSAGE, PSS, hashes.SHA512()))
    assert not verifies(public, server.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()))


def encoded_message(server: RSAPrivateKey) -> bytearray:
    """A well-formed encoded message of DIGEST, taken from the library's own signature."""
    numbers = server.public_key().public_numbers()
    signature = server.sign(MESSAGE, PSS, hashes.SHA256())
    return bytearray(pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(384, "big"))


def raw_signature(server: RSAPrivateKey, encoded: bytes) -> bytes:
    numbers = server.private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(encoded, "big") % n, numbers.d, n).to_bytes(384, "big")


def unmasked(encoded: bytearray, change: Callable[[bytearray], None]) -> bytes:
    """The encoded message with its data block changed under the mask."""
    mask = rsa._mgf1(bytes(encoded[351:383]), 351)
    block = bytearray(a ^ b for a, b in zip(encoded[:351], mask, strict=True))
    block[0] &= 0x7F
    change(block)
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0x7F
    return bytes(masked) + bytes(encoded[351:])


def test_the_forging_helpers_reproduce_a_good_signature(server: RSAPrivateKey) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    encoded = encoded_message(server)
    assert verifies(public, raw_signature(server, bytes(encoded)))
    assert verifies(public, raw_signature(server, unmasked(encoded, lambda block: None)))


@pytest.mark.parametrize("position", [0, 1, 100, 317])
def test_padding_that_is_not_zero_is_refused(server: RSAPrivateKey, position: int) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))

    def dirty(block: bytearray) -> None:
        block[position] |= 1

    assert not verifies(public, raw_signature(server, unmasked(encoded_message(server), dirty)))


@pytest.mark.parametrize("separator", [0, 2, 0x81, 0xFF])
def test_another_separator_is_refused(server: RSAPrivateKey, separator: int) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))

    def change(block: bytearray) -> None:
        assert block[318] == 1
        block[318] = separator

    assert not verifies(public, raw_signature(server, unmasked(encoded_message(server), change)))


def test_a_changed_salt_or_hash_or_trailer_is_refused(server: RSAPrivateKey) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))

    def change(block: bytearray) -> None:
        block[350] ^= 1

    assert not verifies(public, raw_signature(server, unmasked(encoded_message(server), change)))
    for position, value in ((383, 0xCC), (383, 0xBD), (351, 0xFF)):
        encoded = encoded_message(server)
        encoded[position] = encoded[position] ^ 1 if value == 0xFF else value
        assert not verifies(public, raw_signature(server, bytes(encoded)))


def test_a_top_bit_outside_the_encoded_message_is_refused(server: RSAPrivateKey) -> None:
    # A representative above the encoded message's 3071 bits but below n, if this key leaves room for one.
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    for _ in range(64):
        encoded = encoded_message(server)
        encoded[0] |= 0x80
        if int.from_bytes(encoded, "big") < public.n:
            assert not verifies(public, raw_signature(server, bytes(encoded)))
            return
    pytest.fail("no representative below the modulus in 64 draws")


def test_trivial_and_oversized_signatures_are_refused(server: RSAPrivateKey) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    good = int.from_bytes(server.sign(MESSAGE, PSS, hashes.SHA256()), "big")
    n = public.n
    for value in (0, 1, 2, n - 1, n, n + 1, (1 << 3072) - 1):
        assert not verifies(public, value.to_bytes(384, "big"))
    exact = good.to_bytes(384, "big")
    for wrong in (b"", exact[:-1], exact[1:], exact + b"\0", b"\0" + exact):
        assert not verifies(public, wrong)
    assert verifies(public, exact)


def test_a_signature_has_one_representative_only(server: RSAPrivateKey) -> None:
    # s + n verifies by the same arithmetic, so its size must refuse it; not every s leaves room for it.
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    room = (1 << 3072) - public.n
    for _ in range(500):
        good = int.from_bytes(server.sign(MESSAGE, PSS, hashes.SHA256()), "big")
        if good < room:
            assert verifies(public, good.to_bytes(384, "big"))
            assert not verifies(public, (good + public.n).to_bytes(384, "big"))
            return
    pytest.fail("no signature small enough in 500 draws")


def test_every_byte_of_a_signature_counts(server: RSAPrivateKey) -> None:
    public = rsa.PublicKey.from_spki(load_spki("server-sign"))
    good = server.sign(MESSAGE, PSS, hashes.SHA256())
    for position in range(0, 384, 7):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        assert not verifies(public, bytes(bad))
    assert not verifies(public, good, hashlib.sha256(b"another").digest())


def test_a_fault_during_signing_never_leaves_the_terminal(device: RSAPrivateKey) -> None:
    # One wrong exponent bit is what a glitch in one CRT half looks like; the result would reveal a prime.
    private = terminal_key(device)
    private._dp ^= 1 << 500
    with pytest.raises(WireError, match="KEY_FAULT"):
        rsa.run_now(rsa.sign_pss_steps(private, DIGEST, os.urandom))


def test_two_signatures_never_walk_the_same_numbers(device: RSAPrivateKey) -> None:
    private = terminal_key(device)
    draws: list[bytes] = []

    def random(size: int) -> bytes:
        draws.append(os.urandom(size))
        return draws[-1]

    signatures = {rsa.run_now(rsa.sign_pss_steps(private, DIGEST, random)) for _ in range(2)}
    assert len(signatures) == 2
    assert len(set(draws)) == len(draws) == 4  # a salt and a blinding factor each


def test_a_blinding_factor_without_inverse_is_drawn_again(device: RSAPrivateKey) -> None:
    private = terminal_key(device)
    draws = [bytes(32), b"\0" * 31 + b"\x03"]
    message = 0x1234567 << 900
    signature = rsa.run_now(private.power_steps(message, lambda size: draws.pop(0)))
    assert not draws
    assert pow(signature, 65537, private.public.n) == message


def test_only_the_two_exact_key_encodings_are_read() -> None:
    for name, bits in (("root", 3072), ("t-0001", 2048)):
        spki = load_spki(name)
        public = rsa.PublicKey.from_spki(memoryview(spki))
        assert public.to_spki() == spki
        assert public.n.bit_length() == bits
        assert public.kid == hashlib.sha256(spki).digest()[:8]
        header = len(spki) - bits // 8 - 5
        wrong = [spki[:-1], spki + b"\0", b"", spki[:-1] + b"\x03"]
        wrong += [_changed(spki, position, spki[position] ^ 1) for position in range(header)]
        wrong += [
            _changed(spki, header, spki[header] & 0x7F),  # a modulus one bit short
            _changed(spki, len(spki) - 6, spki[-6] & 0xFE),  # an even modulus
        ]
        for data in wrong:
            with pytest.raises(WireError, match="BAD_KEY"):
                rsa.PublicKey.from_spki(data)


def test_private_parts_must_belong_together(device: RSAPrivateKey) -> None:
    numbers = device.private_numbers()
    good = [
        numbers.public_numbers.n,
        numbers.public_numbers.e,
        numbers.p,
        numbers.q,
        numbers.dmp1,
        numbers.dmq1,
        numbers.iqmp,
    ]
    rsa.PrivateKey.from_parts(*good)
    for index in range(len(good)):
        for delta in (-2, 2, -good[index]):
            parts = list(good)
            parts[index] += delta
            with pytest.raises(WireError, match="BAD_KEY") as refusal:
                rsa.PrivateKey.from_parts(*parts)
            assert refusal.value.args == ("BAD_KEY",)


def test_long_operations_pause_often(device: RSAPrivateKey) -> None:
    # What runs between two pauses is what keeps the terminal responsive.
    pauses = sum(1 for _ in rsa.sign_pss_steps(terminal_key(device), DIGEST, os.urandom))
    assert pauses > 400


def _changed(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes((value,)) + data[position + 1 :]
