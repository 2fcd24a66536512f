"""Verification of ops and sealing of replies: nothing moves before the MAC, duplicates are answered again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from server_kit import DEVICE, MENU, SITE, Device, ManualClock, Site, an_op, op_frame

from server.devices.records import SessionRow
from server.devices.verify import NEEDS_NEW_SESSION, OpVerifier, Session, sid_of
from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import unknown_session
from server.wire.keyschedule import SessionKeys
from server.wire.ops import RejectCode, Reply, Status, encode_op_message

ORDER = an_op().encode()


@pytest.fixture
def row(site: Site) -> SessionRow:
    hello = Device().hello(site.beacons.issue(MENU))
    session = site.handshake.prepare(site.record(), hello, MENU).session
    assert session is not None
    return session


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verifier(clock: ManualClock) -> OpVerifier:
    return OpVerifier(clock)


def keys_of(row: SessionRow) -> SessionKeys:
    return SessionKeys(row.k_d2s, row.k_s2d, row.k_resume, row.th8)


def frame_of(row: SessionRow, seq: int, op_bytes: bytes = ORDER) -> bytes:
    return op_frame(keys_of(row), row.sid, seq, op_bytes)


def refusal_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.code


def test_a_good_op_is_opened_whole(row: SessionRow, verifier: OpVerifier) -> None:
    opened = verifier.open(Session(row), frame_of(row, 1))
    assert (opened.seq, opened.duplicate, opened.op, opened.op_bytes) == (1, False, an_op(), ORDER)
    assert sid_of(frame_of(row, 1)) == row.sid


def test_a_mac_valid_duplicate_is_reported_and_still_opened(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    first = verifier.open(session, frame_of(row, 1))
    again = verifier.open(session, frame_of(row, 1))
    assert not first.duplicate
    assert again.duplicate
    assert again.op_hash == first.op_hash


def test_an_op_older_than_the_window_is_reported_as_duplicate(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    verifier.open(session, frame_of(row, 2000))
    assert verifier.open(session, frame_of(row, 976)).duplicate
    assert not verifier.open(session, frame_of(row, 977)).duplicate


def test_reordered_ops_are_all_new(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    assert not any(verifier.open(session, frame_of(row, seq)).duplicate for seq in (3, 1, 2, 8, 5))


def test_a_flipped_bit_anywhere_in_an_op_changes_nothing(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    frame = frame_of(row, 1000)
    for at in range(len(frame)):
        for bit in range(8):
            flipped = bytearray(frame)
            flipped[at] ^= 1 << bit
            assert refusal_of(lambda bad=bytes(flipped): verifier.open(session, bad))  # type: ignore[misc]
    assert session.window.top == 0
    assert not verifier.open(session, frame).duplicate


def test_a_forged_high_sequence_number_does_not_move_the_window(
    row: SessionRow, verifier: OpVerifier
) -> None:
    session = Session(row)
    forged = op_frame(replace(keys_of(row), device_to_server=bytes(32)), row.sid, 900_000, ORDER)
    assert refusal_of(lambda: verifier.open(session, forged)) == RefusalCode.BAD_MAC
    assert session.window.top == 0


def test_a_reflected_reply_is_no_op(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    reply = verifier.seal_reply(session, Reply(bytes(12), Status.COMMITTED, 0, 1, 520, 1, bytes(32)))
    assert refusal_of(lambda: verifier.open(session, reply)) == RefusalCode.BAD_MAC


def test_ops_are_bound_to_site_device_session_transcript_and_kind(
    row: SessionRow, verifier: OpVerifier
) -> None:
    bindings = [
        aad.op("other", DEVICE, row.sid, row.th8),
        aad.op(SITE, "t-0002", row.sid, row.th8),
        aad.op(SITE, DEVICE, b"\0\0\0\0", row.th8),
        aad.op(SITE, DEVICE, row.sid, bytes(8)),
        aad.reply(SITE, DEVICE, row.sid, row.th8),
    ]
    for binding in bindings:
        frame = mac0(row.k_d2s, row.sid, encode_op_message(1, ORDER), mac_prefix(binding))
        assert refusal_of(lambda bad=frame: verifier.open(Session(row), bad)) == RefusalCode.BAD_MAC  # type: ignore[misc]


def test_an_op_of_another_session_asks_for_a_handshake(row: SessionRow, verifier: OpVerifier) -> None:
    frame = op_frame(keys_of(row), b"\xff\xff\xff\xff", 1, ORDER)
    code = refusal_of(lambda: verifier.open(Session(row), frame))
    assert code == RefusalCode.UNKNOWN_SESSION
    assert code in NEEDS_NEW_SESSION
    assert unknown_session(sid_of(frame)) == bytes.fromhex("83 11 44 ffffffff 00")


def test_a_session_ends_after_twelve_hours(row: SessionRow, verifier: OpVerifier, clock: ManualClock) -> None:
    session = Session(row)
    clock.seconds = row.expires_at - 1
    verifier.open(session, frame_of(row, 1))
    clock.seconds = row.expires_at
    assert refusal_of(lambda: verifier.open(session, frame_of(row, 2))) == RefusalCode.SESSION_EXPIRED
    assert session.window.top == 1


def test_a_session_ends_after_its_last_message(row: SessionRow, verifier: OpVerifier) -> None:
    session = Session(row)
    verifier.open(session, frame_of(row, 1 << 20))
    assert (
        refusal_of(lambda: verifier.open(session, frame_of(row, (1 << 20) + 1))) == RefusalCode.SESSION_SPENT
    )


def test_sequence_number_zero_is_refused(row: SessionRow, verifier: OpVerifier) -> None:
    assert refusal_of(lambda: verifier.open(Session(row), frame_of(row, 0))) == RefusalCode.BAD_SHAPE


def test_an_authentic_op_with_a_broken_body_is_answered_not_dropped(
    row: SessionRow, verifier: OpVerifier
) -> None:
    broken = ORDER[:-3] + b"\xfb"  # the total becomes the head of a float that never comes
    opened = verifier.open(Session(row), frame_of(row, 7, broken))
    assert opened.op.reject is RejectCode.MALFORMED
    assert (opened.seq, opened.op.op_id, opened.op_bytes) == (7, an_op().op_id, broken)


def test_an_oversized_op_is_refused_before_any_work(row: SessionRow, verifier: OpVerifier) -> None:
    assert refusal_of(lambda: verifier.open(Session(row), bytes(1025))) == RefusalCode.TOO_LARGE


def test_after_a_restart_a_replayed_op_is_opened_as_new(row: SessionRow, verifier: OpVerifier) -> None:
    """The window is not stored: the op-id decides about effects, and the op-hash proves it is the same op."""
    before = verifier.open(Session(row), frame_of(row, 1))
    restarted = verifier.open(Session(row), frame_of(row, 1))
    assert not restarted.duplicate
    assert (restarted.op.op_id, restarted.op_hash) == (before.op.op_id, before.op_hash)


def test_a_reply_opens_with_the_devices_key_and_binding(row: SessionRow, verifier: OpVerifier) -> None:
    reply = Reply(bytes(12), Status.REJECTED, RejectCode.WRONG_TABLE, 0, 0, 12, bytes(32))
    frame = verifier.seal_reply(Session(row), reply)
    parsed = parse_mac0(frame, 4, 256)
    verify_mac0(parsed, row.k_s2d, mac_prefix(aad.reply(SITE, DEVICE, row.sid, row.th8)))
    assert Reply.from_payload(parsed.payload) == reply
    assert parsed.identifier == row.sid
