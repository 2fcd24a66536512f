"""Resume: a new session without RSA on the terminal, within a day of its last Hello; notices; telemetry."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from server_kit import DEVICE, MENU, NOW, SITE, TABLE, Device, Site, verify_key

from server.devices.handshake import HandshakeResult
from server.devices.records import DeviceRecord, DeviceState, ResumeKey, SessionRow
from server.devices.verify import OpVerifier, Session
from server.wire import aad
from server.wire.cose import mac_prefix, parse_mac0, short_mac0, verify_mac0
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Accept, Beacon
from server.wire.keyschedule import derive, transcript_hash
from server.wire.notices import Notice, NoticeKind
from server.wire.requests import Telemetry
from server.wire.resume import Resume

DAY_S = 24 * 3600


def session_of(result: HandshakeResult) -> SessionRow:
    assert result.session is not None
    return result.session


def after(record: DeviceRecord, result: HandshakeResult) -> DeviceRecord:
    """The record as the storage has it after a handshake."""
    row = session_of(result)
    return replace(
        record,
        handshake=result.handshake,
        hello_hash=result.hello_hash,
        accept=result.accept,
        resume=ResumeKey(row.sid, row.k_resume, row.rsa_at),
    )


def resume_frame(
    record: DeviceRecord, beacon_frame: bytes, *, handshake: int | None = None, **changes: Any
) -> bytes:
    """A Resume as the device makes it."""
    assert record.resume is not None
    counter = Beacon.from_payload(payload_of(beacon_frame)).counter
    resume = Resume(
        device=DEVICE,
        handshake=record.handshake + 1 if handshake is None else handshake,
        nonce_device=b"n" * 16,
        beacon_counter=counter,
        beacon_hash=sha256(beacon_frame).digest(),
        firmware=1,
        menu_version=MENU.version,
        pending=0,
    )
    key = changes.pop("key", record.resume.key)
    sid = changes.pop("sid", record.resume.sid)
    return replace(resume, **changes).seal(key, sid, SITE)


def payload_of(frame: bytes) -> bytes:
    from server.wire.cose import parse_sign1

    return parse_sign1(frame, 2048).payload


@pytest.fixture
def helloed(site: Site) -> DeviceRecord:
    """A device with the session of a Hello."""
    hello = Device().hello(site.beacons.issue(MENU))
    return after(site.record(), site.handshake.prepare(site.record(), hello, MENU))


def refusal_of(site: Site, record: DeviceRecord, frame: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        site.handshake.prepare(record, frame, MENU)
    return refused.value.code


def test_a_resume_leads_to_a_session_both_sides_agree_on(site: Site, helloed: DeviceRecord) -> None:
    beacon_frame = site.beacons.issue(MENU)
    frame = resume_frame(helloed, beacon_frame)
    result = site.handshake.prepare(helloed, frame, MENU)
    row = session_of(result)
    assert helloed.resume is not None
    nonce = Accept.nonce_of(result.accept)
    transcript = transcript_hash(beacon_frame, frame)
    keys = derive(helloed.resume.key, b"n" * 16, nonce, SITE, DEVICE, transcript)
    assert (row.k_d2s, row.k_s2d, row.k_resume, row.th8) == (
        keys.device_to_server,
        keys.server_to_device,
        keys.resume,
        keys.th8,
    )
    _, server_key = Beacon.open(beacon_frame, verify_key("root"), SITE)
    accept = Accept.open(result.accept, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    assert (accept.hello_hash, accept.sid) == (sha256(frame).digest(), row.sid)
    assert row.k_resume != helloed.resume.key


def test_the_identical_resume_gets_the_identical_accept(site: Site, helloed: DeviceRecord) -> None:
    frame = resume_frame(helloed, site.beacons.issue(MENU))
    first = site.handshake.prepare(helloed, frame, MENU)
    again = site.handshake.prepare(after(helloed, first), frame, MENU)
    assert (again.accept, again.session) == (first.accept, None)


def test_a_resume_key_is_used_up(site: Site, helloed: DeviceRecord) -> None:
    beacon = site.beacons.issue(MENU)
    later = after(helloed, site.handshake.prepare(helloed, resume_frame(helloed, beacon), MENU))
    old_key = resume_frame(helloed, beacon, handshake=later.handshake + 1)
    assert refusal_of(site, later, old_key) == RefusalCode.UNKNOWN_SESSION
    assert site.handshake.prepare(later, resume_frame(later, beacon), MENU).session is not None


def test_a_chain_of_resumes_ends_a_day_after_its_hello(site: Site, helloed: DeviceRecord) -> None:
    record = helloed
    for hours in (8, 16, 24):
        site.clock.seconds = NOW + hours * 3600
        record = after(
            record, site.handshake.prepare(record, resume_frame(record, site.beacons.issue(MENU)), MENU)
        )
    site.clock.seconds = NOW + DAY_S + 1
    assert refusal_of(site, record, resume_frame(record, site.beacons.issue(MENU))) == (
        RefusalCode.RESUME_TOO_OLD
    )
    hello = Device().hello(site.beacons.issue(MENU), handshake=record.handshake + 1)
    renewed = after(record, site.handshake.prepare(record, hello, MENU))
    assert renewed.resume is not None
    assert renewed.resume.rsa_at == NOW + DAY_S + 1


def test_a_hello_dated_after_now_does_not_lengthen_the_chain(site: Site, helloed: DeviceRecord) -> None:
    """The server's clock was a week ahead when the Hello came, and was set right since."""
    site.clock.seconds = NOW - 599
    assert site.handshake.prepare(helloed, resume_frame(helloed, site.beacons.issue(MENU)), MENU).session
    site.clock.seconds = NOW - 7 * DAY_S
    assert refusal_of(site, helloed, resume_frame(helloed, site.beacons.issue(MENU))) == (
        RefusalCode.RESUME_TOO_OLD
    )
    hello = Device().hello(site.beacons.issue(MENU), handshake=helloed.handshake + 1)
    renewed = after(helloed, site.handshake.prepare(helloed, hello, MENU))
    assert renewed.resume is not None
    assert renewed.resume.rsa_at == NOW - 7 * DAY_S


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": bytes(32)}, RefusalCode.BAD_MAC),
        ({"sid": b"none"}, RefusalCode.UNKNOWN_SESSION),
        ({"handshake": 1}, RefusalCode.STALE_HANDSHAKE),
        ({"beacon_hash": bytes(32)}, RefusalCode.UNKNOWN_BEACON),
        ({"device": "t-0002"}, RefusalCode.BAD_MAC),
    ],
    ids=["false_key", "unknown_session", "used_counter", "unknown_beacon", "other_device"],
)
def test_a_false_resume_is_refused(
    site: Site, helloed: DeviceRecord, changes: dict[str, Any], code: RefusalCode
) -> None:
    assert refusal_of(site, helloed, resume_frame(helloed, site.beacons.issue(MENU), **changes)) == code


def test_a_suspended_device_cannot_resume(site: Site, helloed: DeviceRecord) -> None:
    frame = resume_frame(helloed, site.beacons.issue(MENU))
    suspended = replace(helloed, state=DeviceState.SUSPENDED, accept=None, resume=None)
    assert refusal_of(site, suspended, frame) == RefusalCode.DEVICE_NOT_ACTIVE
    back = replace(suspended, state=DeviceState.ACTIVE)
    assert refusal_of(site, back, frame) == RefusalCode.UNKNOWN_SESSION


def test_every_flipped_bit_of_a_resume_is_refused(site: Site, helloed: DeviceRecord) -> None:
    frame = resume_frame(helloed, site.beacons.issue(MENU))
    for at in range(len(frame)):
        broken = frame[:at] + bytes((frame[at] ^ 1,)) + frame[at + 1 :]
        with pytest.raises(Refusal):
            site.handshake.prepare(helloed, broken, MENU)


def opened_session(site: Site, record: DeviceRecord) -> Session:
    return Session(
        session_of(site.handshake.prepare(record, resume_frame(record, site.beacons.issue(MENU)), MENU))
    )


def test_notices_are_numbered_upwards_also_over_a_restart(site: Site, helloed: DeviceRecord) -> None:
    session = opened_session(site, helloed)
    row = session.row
    notice = Notice(NoticeKind.SEATING_OPENED, TABLE, 3, 520)

    def read(frame: bytes) -> tuple[int, Notice]:
        parsed = parse_mac0(frame, 4, 256)
        verify_mac0(parsed, row.k_s2d, mac_prefix(aad.notice(SITE, DEVICE, row.sid, row.th8)))
        return Notice.from_payload(parsed.payload)

    first, second = (read(session.seal_notice(notice, NOW)) for _ in range(2))
    restarted = read(Session(row).seal_notice(notice, NOW + 1))
    assert first[1] == second[1] == restarted[1] == notice
    assert 0 < first[0] < second[0] < restarted[0]


def telemetry_frame(session: Session, seq: int, key: bytes | None = None) -> bytes:
    row = session.row
    payload = Telemetry(60, 90_000, 1, 2, -61).payload(seq, b"t" * 12, TABLE, MENU.version)
    return short_mac0(key or row.k_d2s, row.sid, payload, aad.op(SITE, DEVICE, row.sid, row.th8))


def test_telemetry_is_heard_once_and_moves_nothing_of_the_ops(site: Site, helloed: DeviceRecord) -> None:
    session, verifier = opened_session(site, helloed), OpVerifier(site.clock)
    assert verifier.open_telemetry(session, telemetry_frame(session, 7)) == Telemetry(60, 90_000, 1, 2, -61)
    assert verifier.open_telemetry(session, telemetry_frame(session, 7)) is None
    assert verifier.open_telemetry(session, telemetry_frame(session, 6)) is None
    assert session.window.top == 0


def test_telemetry_of_another_key_is_refused_and_no_short_tag_carries_an_op(
    site: Site, helloed: DeviceRecord
) -> None:
    session, verifier = opened_session(site, helloed), OpVerifier(site.clock)
    with pytest.raises(Refusal) as refused:
        verifier.open_telemetry(session, telemetry_frame(session, 1, key=bytes(32)))
    assert refused.value.code == RefusalCode.BAD_MAC
    with pytest.raises(Refusal) as refused:
        verifier.open(session, telemetry_frame(session, 1))
    assert refused.value.code == RefusalCode.BAD_ENVELOPE
