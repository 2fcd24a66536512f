"""Who asks with which release key: what it is offered, and which rotations it is led on with."""

from __future__ import annotations

from release_kit import certificate, key_of, rotation

from server.devices.records import SessionRow
from server.devices.verify import Session
from server.releases.bundle import Bundle, Target, build_bundle
from server.releases.rollout import Rollout, RolloutState
from server.releases.serving import Releases
from server.transport.limits import Limits, RateLimiter
from server.transport.observations import Observations
from server.transport.updates import OFFER, ROTATION, SiteReleases, Updates
from server.wire.freshness import OtaAsk

SITE, DEVICE = "demo", "t-0001"
STEPS = ((2, rotation(1, 2).frame), (3, rotation(2, 3).frame))


def bundle(version: int, epoch: int) -> Bundle:
    target = Target("process", version)
    return build_bundle({"assets/x.txt": b"x"}, target, key_of(epoch), certificate(epoch))


def answered(asked_epoch: int, *bundles: Bundle) -> dict[str, list[bytes]]:
    """What the server sends to a terminal that asks, by topic."""
    sent: dict[str, list[bytes]] = {OFFER: [], ROTATION: []}
    row = SessionRow(SITE, DEVICE, bytes(4), bytes(32), bytes(32), bytes(32), bytes(8), 0, 9, b"", b"", 1)
    updates = Updates(
        SITE,
        lambda _device, topic, payload: sent.setdefault(topic, []).append(payload),
        RateLimiter(Limits(), lambda: 0.0),
        Observations(SITE),
        {DEVICE: Session(row)},
        lambda: 0.0,
    )
    plans = {one.hash[:8]: Rollout(one.hash[:8], RolloutState.RUNNING, 10_000) for one in bundles}
    updates.replace(SiteReleases(Releases(bundles), plans, {}, STEPS))
    updates.ask(DEVICE, OtaAsk(bytes(16), "process", 1, asked_epoch).encode())
    return sent


def test_a_terminal_is_led_on_as_far_as_its_release_needs_and_no_further() -> None:
    first, second, third = bundle(2, 1), bundle(3, 2), bundle(4, 3)
    assert answered(1, first)[ROTATION] == []
    assert answered(1, first, second)[ROTATION] == [STEPS[0][1]]
    assert answered(1, third)[ROTATION] == [frame for _, frame in STEPS]
    assert answered(2, third)[ROTATION] == [STEPS[1][1]]
    assert answered(0, third)[ROTATION] == []


def test_a_terminal_is_not_offered_what_an_older_key_signed() -> None:
    first, second = bundle(2, 1), bundle(3, 2)
    assert answered(2, first)[OFFER] == []
    assert answered(2, first, second)[OFFER] == [second.offer.encode()]
    assert answered(1, first)[OFFER] == answered(0, first)[OFFER] == [first.offer.encode()]
