"""Handshakes as the server judges them; names follow the threats of docs/protocol.md."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from server_kit import DEVICE, MENU, NOW, SITE, TABLE, Device, Site, signer, verify_key

from server.devices.handshake import HandshakeResult
from server.devices.records import DeviceRecord, DeviceState, MenuReference
from server.wire import aad
from server.wire.cose import parse_sign1, sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Accept, Beacon, Hint, HintStatus, hello_refused
from server.wire.rsa import load_public, oaep_encrypt


def refusal_of(site: Site, record: DeviceRecord, frame: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        site.handshake.prepare(record, frame, MENU)
    return refused.value.code


def after(record: DeviceRecord, result: HandshakeResult) -> DeviceRecord:
    return replace(record, handshake=result.handshake, hello_hash=result.hello_hash, accept=result.accept)


def test_a_good_hello_leads_to_a_session_both_sides_agree_on(site: Site) -> None:
    beacon_frame = site.beacons.issue(MENU)
    beacon, server_key = Beacon.open(beacon_frame, verify_key("root"), SITE)
    device = Device()
    hello = device.hello(beacon_frame, handshake=5)
    result = site.handshake.prepare(site.record(committed=3), hello, MENU)
    keys = device.keys(beacon_frame, hello, result.accept)
    accept = Accept.open(result.accept, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    session = result.session
    assert session is not None
    assert (session.k_d2s, session.k_s2d, session.k_resume) == (
        keys.device_to_server,
        keys.server_to_device,
        keys.resume,
    )
    assert (session.sid, session.th8, session.handshake) == (accept.sid, keys.th8, 5)
    assert (session.created_at, session.expires_at) == (NOW, NOW + 12 * 3600)
    assert (accept.hello_hash, accept.table, accept.committed) == (sha256(hello).digest(), TABLE, 3)
    assert (accept.menu_version, accept.menu_hash, accept.ttl_s) == (MENU.version, MENU.hash, 12 * 3600)
    assert beacon.menu_hash == MENU.hash
    assert len(beacon_frame) <= 2048
    assert len(hello) <= 1024
    assert len(result.accept) <= 1024


def test_keys_never_show_in_a_representation(site: Site) -> None:
    result = site.handshake.prepare(site.record(), Device().hello(site.beacons.issue(MENU)), MENU)
    assert result.session is not None
    assert repr(result.session.k_d2s) not in repr(result)
    assert repr(result.session.k_resume) not in repr(result)


def test_the_identical_hello_gets_the_identical_accept(site: Site) -> None:
    hello = Device().hello(site.beacons.issue(MENU))
    first = site.handshake.prepare(site.record(), hello, MENU)
    again = site.handshake.prepare(after(site.record(), first), hello, MENU)
    assert again.accept == first.accept
    assert again.repeated
    assert again.session is None


def test_a_used_or_lower_handshake_counter_is_refused(site: Site) -> None:
    beacon = site.beacons.issue(MENU)
    device = Device()
    record = after(site.record(), site.handshake.prepare(site.record(), device.hello(beacon, 5), MENU))
    assert refusal_of(site, record, device.hello(beacon, 5)) == RefusalCode.STALE_HANDSHAKE
    assert refusal_of(site, record, device.hello(beacon, 4)) == RefusalCode.STALE_HANDSHAKE
    assert site.handshake.prepare(record, device.hello(beacon, 6), MENU).session is not None


def test_a_replayed_hello_after_suspension_gets_no_old_accept(site: Site) -> None:
    hello = Device().hello(site.beacons.issue(MENU))
    record = after(site.record(), site.handshake.prepare(site.record(), hello, MENU))
    assert refusal_of(site, replace(record, accept=None), hello) == RefusalCode.STALE_HANDSHAKE


@pytest.mark.parametrize("state", [DeviceState.PENDING, DeviceState.SUSPENDED, DeviceState.RETIRED])
def test_only_an_active_device_gets_a_session(site: Site, state: DeviceState) -> None:
    hello = Device().hello(site.beacons.issue(MENU))
    assert refusal_of(site, site.record(state=state), hello) == RefusalCode.DEVICE_NOT_ACTIVE


def test_a_spoofed_device_gets_no_session(site: Site) -> None:
    beacon = site.beacons.issue(MENU)
    by_another_key = Device(key="t-0002").hello(beacon)
    assert refusal_of(site, site.record(), by_another_key) == RefusalCode.WRONG_KEY
    claimed = bytearray(by_another_key)
    claimed[10:18] = signer(DEVICE).kid
    assert refusal_of(site, site.record(), bytes(claimed)) == RefusalCode.BAD_SIGNATURE


def test_a_hello_of_another_device_or_site_is_refused(site: Site) -> None:
    beacon = site.beacons.issue(MENU)
    assert refusal_of(site, site.record(), Device("t-0002").hello(beacon)) == RefusalCode.WRONG_KEY
    elsewhere = Device(site="other").hello(beacon)
    assert refusal_of(site, site.record(), elsewhere) == RefusalCode.BAD_SIGNATURE


def test_a_hello_naming_another_device_under_its_own_binding_is_refused(site: Site) -> None:
    foreign = parse_sign1(Device().hello(site.beacons.issue(MENU), device="t-0002"), 1024).payload
    resigned = sign1(signer(DEVICE), foreign, aad.hello(SITE, DEVICE))
    assert refusal_of(site, site.record(), resigned) == RefusalCode.WRONG_DEVICE


def test_a_flipped_bit_anywhere_in_a_hello_is_refused(site: Site) -> None:
    hello = Device().hello(site.beacons.issue(MENU))
    for at in range(len(hello)):
        flipped = bytearray(hello)
        flipped[at] ^= 1 << (at % 8)
        assert refusal_of(site, site.record(), bytes(flipped))


def test_a_hello_for_a_beacon_over_ten_minutes_old_is_refused(site: Site) -> None:
    hello = Device().hello(site.beacons.issue(MENU))
    site.clock.seconds += 600
    assert site.handshake.prepare(site.record(), hello, MENU).session is not None
    site.clock.seconds += 1
    assert refusal_of(site, site.record(), hello) == RefusalCode.STALE_BEACON
    site.beacons.issue(MENU)
    assert refusal_of(site, site.record(), hello) == RefusalCode.UNKNOWN_BEACON


def test_a_hello_that_names_a_beacon_never_issued_is_refused(site: Site) -> None:
    beacon = site.beacons.issue(MENU)
    foreign = Device().hello(beacon, beacon_hash=bytes(32))
    assert refusal_of(site, site.record(), foreign) == RefusalCode.UNKNOWN_BEACON
    other_counter = Device().hello(beacon, beacon_counter=99)
    assert refusal_of(site, site.record(), other_counter) == RefusalCode.UNKNOWN_BEACON


@pytest.mark.parametrize("trouble", ["garbage", "wrong label", "short secret", "long secret"])
def test_an_unreadable_secret_is_refused_only_after_the_whole_work(site: Site, trouble: str) -> None:
    beacon_frame = site.beacons.issue(MENU)
    key = load_public(Beacon.open(beacon_frame, verify_key("root"), SITE)[0].decrypt_spki, 2048)
    label = aad.oaep_label(SITE, DEVICE)
    secret = {
        "garbage": bytes(256),
        "wrong label": oaep_encrypt(key, bytes(32), aad.oaep_label(SITE, "t-0002")),
        "short secret": oaep_encrypt(key, bytes(31), label),
        "long secret": oaep_encrypt(key, bytes(33), label),
    }[trouble]
    drawn_before = site.entropy.drawn
    site.handshake.prepare(site.record(), Device().hello(beacon_frame), MENU)
    drawn_for_good = site.entropy.drawn - drawn_before
    hello = Device().hello(beacon_frame, secret=secret)
    assert refusal_of(site, site.record(), hello) == RefusalCode.BAD_SECRET
    assert site.entropy.drawn - drawn_before == 2 * drawn_for_good


def test_every_bad_hello_gets_the_same_answer() -> None:
    hint = Hint.decode(hello_refused(b"any bytes"))
    assert hint == Hint(HintStatus.HELLO_REFUSED, sha256(b"any bytes").digest()[:8], 0)


def test_two_handshakes_never_share_nonce_session_or_keys(site: Site) -> None:
    beacon = site.beacons.issue(MENU)
    device = Device()  # same secret and same nonce on purpose
    first = site.handshake.prepare(site.record(), device.hello(beacon, 1), MENU).session
    second = site.handshake.prepare(site.record(), device.hello(beacon, 2), MENU).session
    assert first is not None
    assert second is not None
    assert first.sid != second.sid
    assert not {first.k_d2s, first.k_s2d, first.k_resume} & {second.k_d2s, second.k_s2d, second.k_resume}


def test_an_accept_of_another_handshake_is_refused_by_the_device(site: Site) -> None:
    beacon_frame = site.beacons.issue(MENU)
    _, server_key = Beacon.open(beacon_frame, verify_key("root"), SITE)
    device = Device()
    hellos = [device.hello(beacon_frame, counter) for counter in (1, 2)]
    old = site.handshake.prepare(site.record(), hellos[0], MENU).accept
    keys = device.keys(beacon_frame, hellos[1], old)
    with pytest.raises(Refusal) as refused:
        Accept.open(old, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    assert refused.value.code == RefusalCode.BAD_MAC


def test_a_spoofed_server_cannot_make_an_accept(site: Site) -> None:
    beacon_frame = site.beacons.issue(MENU)
    _, server_key = Beacon.open(beacon_frame, verify_key("root"), SITE)
    device = Device()
    hello = device.hello(beacon_frame)
    good = site.handshake.prepare(site.record(), hello, MENU).accept
    keys = device.keys(beacon_frame, hello, good)
    genuine = Accept.open(good, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    # Whoever stole the daily key knows the session keys, but not server-sign.
    forged = genuine.seal(signer("evil-root"), keys.server_to_device, SITE, DEVICE, keys.th8)
    with pytest.raises(Refusal) as refused:
        Accept.open(forged, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    assert refused.value.code == RefusalCode.WRONG_KEY


def test_the_accept_names_the_menu_of_now_not_of_the_beacon(site: Site) -> None:
    beacon_frame = site.beacons.issue(MENU)
    _, server_key = Beacon.open(beacon_frame, verify_key("root"), SITE)
    device = Device()
    hello = device.hello(beacon_frame)
    newer = MenuReference(8, bytes(32))
    result = site.handshake.prepare(site.record(), hello, newer)
    keys = device.keys(beacon_frame, hello, result.accept)
    accept = Accept.open(result.accept, server_key, keys.server_to_device, SITE, DEVICE, keys.th8)
    assert (accept.menu_version, accept.menu_hash) == (8, bytes(32))
