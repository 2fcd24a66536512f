"""The terminal reads the vectors as they were meant, writes its own byte for byte and refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest
from frame_judge import Judge
from terminal.wire import cose, keys, rsa
from terminal.wire import frames as wire
from wire_fixtures import load_key, load_spki

SERVER_KINDS = {
    "cert-frame",
    "beacon-frame",
    "accept-frame",
    "reply-frame",
    "manifest-frame",
    "menu-frame",
    "hint",
    "menu-chunk",
    "offer",
    "ota-chunk",
    "ota-fresh-frame",
    "ota-rotation",
}
"""Kinds a terminal reads; it only ever writes the others."""

CODES = {
    "empty": {"TRUNCATED"},
    "truncated": {"TRUNCATED", "BAD_ENVELOPE"},
    "trailing": {"TRAILING", "BAD_ENVELOPE"},
    "size": {"TOO_LARGE"},
    "shape": {
        "WRONG_TYPE",
        "OUT_OF_RANGE",
        "BAD_ENVELOPE",
        "TRUNCATED",
        "TRAILING",
        "WRONG_KEY",
        "TOO_LARGE",
    },
    "non-shortest": {"NOT_SHORTEST", "BAD_ENVELOPE"},
    "indefinite": {"WRONG_TYPE", "BAD_ENVELOPE"},
    "range": {"OUT_OF_RANGE", "WRONG_TYPE"},  # a negative number is of another major type
    "text": {"BAD_TEXT"},
    "algorithm": {"BAD_ENVELOPE"},
    "key-id": {"WRONG_KEY"},
    "signature": {"BAD_SIGNATURE"},
    "mac": {"BAD_TAG", "WRONG_KEY"},
    "binding": {"BAD_TAG", "WRONG_KEY"},
    "trust": {"WRONG_PURPOSE", "WRONG_KEY"},
}
"""Refusal codes that say the same as the vectors' reason."""


@pytest.fixture(scope="module")
def judge(vectors: dict[str, Any]) -> Judge:
    inputs, schedule = vectors["inputs"], vectors["key_schedule"]
    return Judge(
        load_spki("root"),
        load_spki("server-sign"),
        inputs["site"],
        inputs["device"],
        bytes.fromhex(inputs["sid"]),
        bytes.fromhex(schedule["th8"]),
        bytes.fromhex(schedule["s2d"]),
    )


def test_every_frame_of_the_server_is_accepted(vectors: dict[str, Any], judge: Judge) -> None:
    seen = set()
    for vector in vectors["frames"]:
        if vector["kind"] in SERVER_KINDS and not vector["name"].startswith("cert-release"):
            seen.add(vector["kind"])
            assert judge.judge(vector["kind"], bytes.fromhex(vector["hex"])).startswith("accepted"), vector[
                "name"
            ]
    assert seen == SERVER_KINDS


def test_a_release_certificate_does_not_make_a_server(frames: dict[str, Any], judge: Judge) -> None:
    assert judge.judge("cert-frame", bytes.fromhex(frames["cert-release"]["hex"])) == "refused WRONG_PURPOSE"


def test_every_hostile_frame_is_refused_for_its_reason(vectors: dict[str, Any], judge: Judge) -> None:
    seen = 0
    for vector in vectors["negative"]:
        if vector["kind"] not in SERVER_KINDS or (vector["kind"], vector["stage"]) == (
            "manifest-frame",
            "verify",
        ):
            continue
        seen += 1
        verdict = judge.judge(vector["kind"], bytes.fromhex(vector["hex"]))
        outcome, _, code = verdict.partition(" ")
        assert outcome == "refused", vector["name"]
        assert code in CODES[vector["reason"]], (vector["name"], vector["reason"], code)
    assert seen > 100


def test_any_single_bit_flip_in_a_sealed_frame_is_refused(frames: dict[str, Any], judge: Judge) -> None:
    for name in ("reply-committed", "accept"):
        good = bytes.fromhex(frames[name]["hex"])
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit >> 3] ^= 1 << (bit & 7)
            assert judge.judge(frames[name]["kind"], bytes(bad)).startswith("refused"), (name, bit)


def test_no_prefix_of_any_frame_is_accepted(vectors: dict[str, Any], judge: Judge) -> None:
    for vector in vectors["frames"]:
        if vector["kind"] in SERVER_KINDS and vector["kind"] not in (
            "menu-frame",
            "cert-frame",
            "beacon-frame",
        ):
            good = bytes.fromhex(vector["hex"])
            for size in range(len(good)):
                verdict = judge.judge(vector["kind"], good[:size])
                assert verdict.startswith("refused"), (vector["name"], size)


def test_the_key_schedule_is_the_vectors(vectors: dict[str, Any], frames: dict[str, Any]) -> None:
    inputs, schedule = vectors["inputs"], vectors["key_schedule"]
    transcript = keys.transcript_hash(
        bytes.fromhex(frames["beacon"]["hex"]), bytes.fromhex(frames["hello"]["hex"])
    )
    assert transcript.hex() == schedule["th"]
    made = keys.session_keys(
        bytes.fromhex(inputs["secret"]),
        bytes.fromhex(inputs["nonce_d"]),
        bytes.fromhex(inputs["nonce_s"]),
        inputs["site"],
        inputs["device"],
        transcript,
    )
    assert [key.hex() for key in made] == [schedule["d2s"], schedule["s2d"], schedule["resume"]]


def test_orders_are_sealed_byte_for_byte(vectors: dict[str, Any], frames: dict[str, Any]) -> None:
    inputs, schedule = vectors["inputs"], vectors["key_schedule"]
    sealer = cose.Sealer(
        bytes.fromhex(schedule["d2s"]),
        inputs["site"],
        inputs["device"],
        bytes.fromhex(inputs["sid"]),
        bytes.fromhex(schedule["th8"]),
    )
    for name in ("order-1-line", "order-3-lines", "order-6-lines"):
        vector = frames[name]
        op_id = bytes.fromhex(vector["op_id"])
        op = wire.encode_order(op_id, inputs["table"], vector["lines"], 1, vector["total_minor"])
        assert op.hex() == vector["op"]
        assert sealer.seal(op).hex() == vector["hex"]


class Recorded:
    """An entropy source that repeats what the vectors' maker drew."""

    def __init__(self, *draws: bytes) -> None:
        self._draws = list(draws)

    def __call__(self, size: int) -> bytes:
        draw = self._draws.pop(0)
        assert len(draw) == size
        return draw


def test_a_hello_is_made_byte_for_byte(vectors: dict[str, Any], frames: dict[str, Any]) -> None:
    inputs, vector = vectors["inputs"], frames["hello"]
    secret, seed = bytes.fromhex(inputs["secret"]), bytes.fromhex(inputs["oaep_seed"])
    label = cose.aad("oaep", inputs["site"], inputs["device"])
    decrypt = rsa.PublicKey.from_spki(load_spki("server-decrypt"))
    ciphertext = rsa.run_now(rsa.oaep_encrypt_steps(decrypt, secret, label, Recorded(seed)))
    assert ciphertext in bytes.fromhex(vector["payload"])
    numbers = load_key(inputs["device"]).private_numbers()
    private = rsa.PrivateKey.from_parts(
        numbers.public_numbers.n,
        numbers.public_numbers.e,
        numbers.p,
        numbers.q,
        numbers.dmp1,
        numbers.dmq1,
        numbers.iqmp,
    )
    salt, blind = bytes.fromhex(vector["salt"]), b"\x35" * 32
    steps = cose.sign1_sign_steps(
        private,
        private.public.kid,
        cose.aad("hello", inputs["site"], inputs["device"]),
        bytes.fromhex(vector["payload"]),
        Recorded(salt, blind),
    )
    assert rsa.run_now(steps).hex() == vector["hex"]


def test_plain_frames_of_the_terminal_are_made_byte_for_byte(frames: dict[str, Any]) -> None:
    made = {
        "presence-online": wire.encode_presence(*_read(frames["presence-online"])),
        "presence-offline": wire.encode_presence(*_read(frames["presence-offline"])),
        "ota-get-chunks": wire.encode_ota_get(*_read(frames["ota-get-chunks"])),
        "ota-get-hashes": wire.encode_ota_get(*_read(frames["ota-get-hashes"])),
        **{
            name: wire.encode_ota_state(*_read(frames[name]))
            for name in ("ota-state", "ota-state-named", "ota-state-none")
        },
    }
    for name, frame in made.items():
        assert frame.hex() == frames[name]["hex"]


def _read(vector: dict[str, Any]) -> list[Any]:
    import cbor2

    values = cbor2.loads(bytes.fromhex(vector["hex"]))
    assert isinstance(values, list)
    return values
