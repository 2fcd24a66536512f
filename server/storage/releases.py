"""Releases and their rollouts as rows: what operators change, each change one transaction a server notices.

What terminals report is written by ``update_reports``; ``release_reads`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection

from server.releases import words
from server.releases.lineage import Step, newest, stored_step, stranded
from server.releases.rollout import SERVED_MAX_BYTES, SERVED_PER_GROUP, Placed, Rollout, RolloutState, crowd
from server.storage.admin import AdminError
from server.storage.database import Database
from server.storage.release_reads import placed, rollout_of
from server.storage.schema import device, release
from server.storage.schema_releases import device_group, image_pin, key_rotation, rollout
from server.wire.updates import Offer


class ReleaseError(AdminError):
    """A release that is not published, or a rollout that cannot be changed; ``code`` is stable."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class NewRelease:
    """A verified bundle to publish. ``images`` are the numbers, ``image_digest`` the digest of the image it
    was built for, ``key_epoch`` the release key's.
    """

    ref: bytes
    version: int
    hardware: str
    offer: bytes
    bundle: bytes
    images: tuple[int, int]
    image_digest: bytes | None
    key_epoch: int


# ---------------------------------------------------------------- publishing


def publish(
    database: Database,
    site: str,
    new: NewRelease,
    plan: Rollout,
    now_s: int,
    rotations: Sequence[Step] = (),
) -> bool:
    """Store a release, its rollout and the rotations to its key: all or nothing. -> whether it is new.

    Publishing the same one again adds rotations and changes nothing else.
    Raises: ReleaseError LOWER_VERSION, VERSION_TAKEN, IMAGE_TAKEN, KEY_RETIRED, NO_ROTATION, ROTATION_TAKEN,
    TOO_MANY_RELEASES.
    """
    with database.admin() as connection:
        before = placed(connection, site)
        is_known = _known(connection, site, new.ref)
        if is_known and not rotations:
            return False
        if not is_known:
            _check_version(connection, site, new)
            _pin_image(connection, site, new)
        _follow(connection, site, new, rotations)
        if is_known:
            return False
        connection.execute(
            insert(release).values(
                site=site, ref=new.ref, version=new.version, hardware=new.hardware, offer=new.offer,
                bundle=new.bundle, published_at=now_s,
            )
        )  # fmt: skip
        connection.execute(insert(rollout).values(site=site, reason="", changed_at=now_s, **_values(plan)))
        _check_room(connection, site, before)
    return True


def _known(connection: Connection, site: str, ref: bytes) -> bool:
    found = select(release.c.ref).where(release.c.site == site, release.c.ref == ref)
    return connection.execute(found).one_or_none() is not None


def _check_version(connection: Connection, site: str, new: NewRelease) -> None:
    here = (release.c.site == site) & (release.c.hardware == new.hardware)
    newest = connection.execute(select(func.max(release.c.version)).where(here)).scalar() or 0
    if new.version == newest:
        raise ReleaseError(
            "VERSION_TAKEN",
            f"version {words.version(new.version)} for {new.hardware} is another bundle already; "
            f"give this one the next number",
        )
    if new.version < newest:
        raise ReleaseError(
            "LOWER_VERSION",
            f"version {words.version(new.version)} for {new.hardware} is below {words.version(newest)}, "
            f"which is published: terminals would never take it; build it anew with a higher number",
        )


def _pin_image(connection: Connection, site: str, new: NewRelease) -> None:
    """A number stands for one image: the first release that names it with a digest decides which."""
    if new.image_digest is None or new.images[0] != new.images[1]:
        return
    number = new.images[0]
    here = (
        (image_pin.c.site == site) & (image_pin.c.hardware == new.hardware) & (image_pin.c.number == number)
    )
    pinned = connection.execute(select(image_pin.c.digest).where(here)).scalar()
    if pinned is None:
        connection.execute(
            insert(image_pin).values(site=site, hardware=new.hardware, number=number, digest=new.image_digest)
        )
    elif bytes(pinned) != new.image_digest:
        raise ReleaseError(
            "IMAGE_TAKEN",
            f"image {words.version(number)} for {new.hardware} is {bytes(pinned).hex()[:16]} here, but the "
            f"bundle was built for an image {new.image_digest.hex()[:16]} of the same number; number that "
            f"image anew",
        )


def withdraw(database: Database, site: str, ref: bytes) -> None:
    """Forget a release and its rollout; histories stay. Raises: ReleaseError UNKNOWN_RELEASE."""
    with database.admin() as connection:
        _need(connection, site, ref)
        connection.execute(delete(rollout).where(rollout.c.site == site, rollout.c.ref == ref))
        connection.execute(delete(release).where(release.c.site == site, release.c.ref == ref))


def _follow(connection: Connection, site: str, new: NewRelease, rotations: Sequence[Step]) -> None:
    """Store the rotations if they lead to the release's key, and whoever is known here has a way to it."""
    frames = connection.execute(select(key_rotation.c.frame).where(key_rotation.c.site == site)).scalars()
    stored = {step.after: step for step in map(stored_step, map(bytes, frames))}
    for step in rotations:
        known = stored.setdefault(step.after, step)
        if (known.before, known.kid) != (step.before, step.kid):
            raise ReleaseError(
                "ROTATION_TAKEN",
                f"another rotation to a key of epoch {step.after} is published: terminals follow the first "
                f"one they get; make the next key with `release keygen --rotate`",
            )
        if known is step:
            connection.execute(insert(key_rotation).values(site=site, epoch=step.after, frame=step.frame))
    latest = newest(stored.values())
    if new.key_epoch < latest:
        raise ReleaseError(
            "KEY_RETIRED",
            f"it is signed with the release key of epoch {new.key_epoch}; terminals that know the one of "
            f"epoch {latest} refuse it: build it with a new number and sign it with release-{latest}.pem",
        )
    offers = connection.execute(select(release.c.offer).where(release.c.site == site)).scalars()
    older = {Offer.decode(bytes(offer)).key_epoch for offer in offers} | {step.before for step in rotations}
    lost = stranded((epoch for epoch in older if epoch < new.key_epoch), new.key_epoch, stored.values())
    if lost is not None:
        raise ReleaseError(
            "NO_ROTATION",
            f"it is signed with the release key of epoch {new.key_epoch}; terminals that know the one of "
            f"epoch {lost} refuse it: publish it with --rotation and every rotation-N.cbor from "
            f"{lost + 1} to {new.key_epoch}",
        )


def _check_room(connection: Connection, site: str, before: Sequence[Placed]) -> None:
    """Refuse a change that makes more releases than a server holds."""
    found = crowd(before, placed(connection, site))
    if found is None:
        return
    oldest = f"{words.version(found.oldest.version)} ({found.oldest.rollout.ref.hex()})"
    if not found.hardware:
        raise ReleaseError(
            "TOO_MANY_RELEASES",
            f"all bundles on offer would be over {SERVED_MAX_BYTES} bytes: withdraw one first, for example "
            f"{oldest}",
        )
    whom = f"group {found.group}" if found.group else "all terminals"
    raise ReleaseError(
        "TOO_MANY_RELEASES",
        f"for {found.hardware} and {whom} {SERVED_PER_GROUP} releases are on offer already: withdraw one, "
        f"for example {oldest}, or give a newer one to 100 percent, which supersedes the older ones",
    )


# ---------------------------------------------------------------- rollouts


def _values(plan: Rollout) -> dict[str, object]:
    return {
        "ref": plan.ref,
        "state": plan.state.value,
        "share": plan.share,
        "group_name": plan.group,
        "halt_percent": plan.halt_percent,
        "halt_failures": plan.halt_failures,
    }


def _need(connection: Connection, site: str, ref: bytes) -> Rollout:
    found = select(rollout).where(rollout.c.site == site, rollout.c.ref == ref)
    row = connection.execute(found).one_or_none()
    if row is None:
        raise ReleaseError(
            "UNKNOWN_RELEASE",
            f"no release {ref.hex()} is published here; `release status` shows those that are",
        )
    return rollout_of(row)


def set_rollout(database: Database, site: str, ref: bytes, now_s: int, **changed: int | str) -> Rollout:
    """Change share, group, halt_percent or halt_failures of a rollout; what it has reached stays reached.

    Raises: ReleaseError UNKNOWN_RELEASE, HALTED, TOO_MANY_RELEASES.
    """
    with database.admin() as connection:
        plan, before = _need(connection, site, ref), placed(connection, site)
        if plan.state is RolloutState.HALTED:
            raise ReleaseError(
                "HALTED",
                f"the rollout of {ref.hex()} is halted; `release status` says why, and `release resume "
                f"--despite-failures` goes on with it",
            )
        names = {"group": "group_name"}
        values = {names.get(name, name): value for name, value in changed.items()}
        _change(connection, site, ref, {**values, "changed_at": now_s})
        _check_room(connection, site, before)
        return _need(connection, site, ref)


def move(
    database: Database,
    site: str,
    ref: bytes,
    target: RolloutState,
    reason: str,
    now_s: int,
    *,
    despite: bool = False,
) -> RolloutState:
    """Pause, halt or resume a rollout; -> the state it had. ``despite`` lets a halted one go on.

    A halt or a pause is never refused for want of room, though it may bring back what was superseded.
    Raises: ReleaseError UNKNOWN_RELEASE, HALTED, TOO_MANY_RELEASES.
    """
    with database.admin() as connection:
        before, known = _need(connection, site, ref).state, placed(connection, site)
        if before is RolloutState.HALTED and target is not RolloutState.HALTED and not despite:
            raise ReleaseError(
                "HALTED", f"the rollout of {ref.hex()} is halted; say --despite-failures if it shall go on"
            )
        _change(connection, site, ref, {"state": target.value, "reason": reason, "changed_at": now_s})
        if target is RolloutState.RUNNING:
            _check_room(connection, site, known)
    return before


def _change(connection: Connection, site: str, ref: bytes, values: Mapping[str, object]) -> None:
    connection.execute(
        update(rollout).where(rollout.c.site == site, rollout.c.ref == ref).values(dict(values))
    )


def set_group(database: Database, site: str, name: str, group: str) -> None:
    """Put a terminal into a group, "" for none. Raises: AdminError for an unknown one."""
    with database.admin() as connection:
        known = select(device.c.device).where(device.c.site == site, device.c.device == name)
        if connection.execute(known).one_or_none() is None:
            raise AdminError(f"there is no device {name!r}; `devices list` shows those that are registered")
        connection.execute(
            delete(device_group).where(device_group.c.site == site, device_group.c.device == name)
        )
        if group:
            connection.execute(insert(device_group).values(site=site, device=name, group_name=group))
