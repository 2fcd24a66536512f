"""Publishing: which release keys terminals still accept, and how many releases are on offer at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from release_kit import key_of, offer, rotation

from server.releases.lineage import stranded
from server.releases.rollout import SERVED_PER_GROUP, Placed, Rollout, RolloutState, crowd, superseded_by
from server.releases.views import retired
from server.storage import release_reads, releases
from server.storage.database import Database
from server.storage.releases import NewRelease, ReleaseError

SITE = "demo"
WHOLE, PART = 10_000, 100
HALTED, PAUSED, RUNNING = RolloutState.HALTED, RolloutState.PAUSED, RolloutState.RUNNING


def publish(
    database: Database,
    version: int,
    *steps: tuple[int, int],
    epoch: int = 1,
    share: int = WHOLE,
    hardware: str = "process",
    group: str = "",
) -> bytes:
    """Publish a release -> its reference."""
    ref = f"{hardware:.4}{version:04}".encode()
    new = NewRelease(ref, version, hardware, offer(epoch), b"bundle", (1, 1), None, epoch)
    rotations = [rotation(*step) for step in steps]
    releases.publish(database, SITE, new, Rollout(ref, RUNNING, share, group), 1, rotations)
    return ref


def refused(database: Database, version: int, *steps: tuple[int, int], epoch: int) -> str:
    """Why a release is not published; nothing of it, or of its rotations, may be left."""
    before = release_reads.on_offer(database, SITE)
    with pytest.raises(ReleaseError) as refusal:
        publish(database, version, *steps, epoch=epoch)
    assert release_reads.on_offer(database, SITE) == before
    return refusal.value.code


def served(database: Database) -> int:
    return len(release_reads.on_offer(database, SITE).bundles)


def placed(version: int, share: int = WHOLE, state: RolloutState = RUNNING, group: str = "") -> Placed:
    return Placed(version, "process", 1, Rollout(b"%08d" % version, state, share, group))


# ---------------------------------------------------------------- release keys


def test_a_refused_release_leaves_no_rotation_behind(database: Database) -> None:
    publish(database, 5)
    assert refused(database, 4, (1, 2), epoch=2) == "LOWER_VERSION"
    assert release_reads.on_offer(database, SITE).rotations == ()
    publish(database, 6, (1, 2), epoch=2)
    assert [epoch for epoch, _ in release_reads.on_offer(database, SITE).rotations] == [2]


def test_a_retired_key_publishes_nothing_more(database: Database) -> None:
    publish(database, 5, share=PART)
    publish(database, 6, (1, 2), epoch=2, share=PART)
    assert refused(database, 7, epoch=1) == "KEY_RETIRED"
    assert refused(database, 7, (2, 3), epoch=2) == "KEY_RETIRED"
    publish(database, 7, epoch=2)


def test_a_newer_key_needs_a_way_to_it_from_every_older_one(database: Database) -> None:
    publish(database, 5)
    assert refused(database, 6, epoch=2) == "NO_ROTATION"
    assert refused(database, 6, (2, 3), epoch=3) == "NO_ROTATION"
    assert refused(database, 6, (1, 2), epoch=3) == "NO_ROTATION"
    publish(database, 6, (1, 2), (2, 3), epoch=3)
    assert stranded([1], 3, [rotation(1, 2), rotation(1, 3)]) == 1  # it follows the first one it gets


def test_an_epoch_has_one_rotation(database: Database) -> None:
    publish(database, 5)
    publish(database, 6, (1, 2), epoch=2)
    publish(database, 7, (1, 2), epoch=2)  # the same again
    assert key_of(5).spki == key_of(2).spki
    other = replace(rotation(1, 2), kid=key_of(3).kid)
    new = NewRelease(b"another!", 8, "process", offer(2), b"bundle", (1, 1), None, 2)
    with pytest.raises(ReleaseError) as refusal:
        releases.publish(database, SITE, new, Rollout(new.ref, RUNNING, 0), 1, [other])
    assert refusal.value.code == "ROTATION_TAKEN"


def test_rollouts_of_the_older_key_are_named(database: Database) -> None:
    old = publish(database, 5, share=PART)
    assert retired(release_reads.published(database, SITE)) == []
    publish(database, 6, (1, 2), epoch=2, share=PART)
    (sentence,) = retired(release_reads.published(database, SITE))
    assert "0.0.5" in sentence
    assert "epoch 1" in sentence
    releases.move(database, SITE, old, HALTED, "", 2)
    assert retired(release_reads.published(database, SITE)) == []


# ---------------------------------------------------------------- how many


def test_every_running_rollout_is_served_however_many_of_other_hardware_there_are(
    database: Database,
) -> None:
    publish(database, 1, hardware="pi")
    for version in range(1, SERVED_PER_GROUP + 1):
        publish(database, version, share=PART)
    known = release_reads.published(database, SITE)
    assert served(database) == len(known) == SERVED_PER_GROUP + 1
    assert all(one.superseded_by is None for one in known)


def test_more_than_a_server_holds_is_refused_by_hardware_and_group(database: Database) -> None:
    refs = [publish(database, version, share=PART) for version in range(1, SERVED_PER_GROUP + 1)]
    with pytest.raises(ReleaseError, match="withdraw one") as refusal:
        publish(database, 20, share=PART)
    assert refusal.value.code == "TOO_MANY_RELEASES"
    publish(database, 20, share=PART, group="terrace")
    publish(database, 20, share=PART, hardware="pi")
    releases.move(database, SITE, refs[0], HALTED, "", 2)
    publish(database, 21, share=PART)
    with pytest.raises(ReleaseError, match="withdraw one"):
        releases.move(database, SITE, refs[0], RUNNING, "", 2, despite=True)
    releases.withdraw(database, SITE, refs[1])
    releases.move(database, SITE, refs[0], RUNNING, "", 2, despite=True)


def test_a_release_for_everybody_supersedes_the_older_ones_until_it_is_halted(database: Database) -> None:
    for version in range(1, 4 * SERVED_PER_GROUP):
        newest = publish(database, version)
    assert served(database) == 1
    known = release_reads.published(database, SITE)
    assert [one.superseded_by for one in known] == [known[-1].version] * (len(known) - 1) + [None]
    releases.move(database, SITE, newest, HALTED, "", 2)
    assert served(database) == 1
    assert release_reads.published(database, SITE)[-2].superseded_by is None


def test_what_supersedes_a_release_reaches_all_of_its_terminals() -> None:
    old = placed(1)
    assert superseded_by(old, [old, placed(2), placed(3)]) == placed(3)
    for other in (placed(2, PART), placed(2, state=PAUSED), placed(2, state=HALTED), placed(2, group="bar")):
        assert superseded_by(old, [old, other]) is None
    assert superseded_by(placed(1, group="bar"), [placed(2)]) is not None
    assert superseded_by(old, [replace(placed(2), hardware="pi")]) is None


def test_only_what_grows_is_too_much() -> None:
    many = [placed(version, PART) for version in range(1, 20)]
    assert crowd(many, many) is None
    assert crowd(many, many[1:]) is None
    assert crowd(many[1:], many) is not None
    large = [replace(one, size_bytes=1 << 26) for one in many]
    assert crowd(large[:2], large[:2]) is None
    found = crowd(large[:2], large[:3])
    assert found is not None
    assert found.hardware == ""
