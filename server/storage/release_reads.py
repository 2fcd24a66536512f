"""Releases, rollouts and terminals' updates as rows: what operators and the server read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.engine import Connection

from server.releases.rollout import Outcome, Placed, Rollout, RolloutState, needed, superseded_by
from server.storage.database import Database
from server.storage.schema import device, presence, release, update_state
from server.storage.schema_releases import (
    device_group,
    key_rotation,
    rollout,
    rollout_device,
    update_history,
    update_question,
)
from server.wire.updates import APPLICATION, IMAGE, IMAGE_CLASS_SUFFIX, Offer


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A published release and its rollout; sizes in bytes, times in unix seconds.

    ``superseded_by`` is the version that all of its rollout's terminals are offered instead, if there is one.
    ``key_retired`` says that terminals which have followed a key rotation refuse it.
    """

    ref: bytes
    version: int
    hardware: str
    size_bytes: int
    published_at: int
    rollout: Rollout
    reason: str
    outcomes: Mapping[str, int]
    superseded_by: int | None
    key_epoch: int
    key_retired: bool


@dataclass(frozen=True, slots=True)
class LayerUpdate:
    """Where the update of a terminal's application or firmware image stands.

    What it never said is None; ``hardware`` is "" until it asked.
    """

    hardware: str
    running: int | None
    slot: int | None
    state: int | None
    offset: int | None
    reason: int
    seen_at: int | None
    asked_at: int | None
    release: bytes | None
    outcome: str
    failure: int


@dataclass(frozen=True, slots=True)
class TerminalUpdate:
    """Where a terminal's updates stand; ``image`` is None for one that never spoke of a firmware image."""

    device: str
    group: str
    online: bool | None
    application: LayerUpdate
    image: LayerUpdate | None


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """One step of a terminal's updates, as it reported it; ``ref`` is the release it was offered then."""

    at: int
    ref: bytes | None
    running: int
    slot: int
    state: int
    reason: int


@dataclass(frozen=True, slots=True)
class OnOffer:
    """Everything a server needs to answer terminals: (offer, bundle) oldest first, and who gets what."""

    bundles: tuple[tuple[bytes, bytes], ...]
    rollouts: Mapping[bytes, Rollout]
    groups: Mapping[str, str]
    rotations: tuple[tuple[int, bytes], ...]


def rollout_of(row: Row[Any]) -> Rollout:
    """A row of the table as a rollout."""
    return Rollout(
        bytes(row.ref),
        RolloutState(row.state),
        row.share,
        row.group_name,
        row.halt_percent,
        row.halt_failures,
    )


def _published_rows(connection: Connection, site: str) -> Sequence[Row[Any]]:
    columns = (release.c.version, release.c.hardware, release.c.published_at, release.c.offer)
    return connection.execute(
        select(*columns, func.length(release.c.bundle).label("size"), rollout)
        .join(rollout, (rollout.c.site == release.c.site) & (rollout.c.ref == release.c.ref))
        .where(release.c.site == site)
        .order_by(release.c.published_at, release.c.version)
    ).all()


def _placed(row: Row[Any]) -> Placed:
    return Placed(row.version, row.hardware, row.size, rollout_of(row))


def placed(connection: Connection, site: str) -> list[Placed]:
    """Every release with its rollout, oldest first."""
    return [_placed(row) for row in _published_rows(connection, site)]


def newest_epoch(connection: Connection, site: str) -> int:
    """The newest release key a published rotation leads to, 0 without any."""
    found = connection.execute(select(func.max(key_rotation.c.epoch)).where(key_rotation.c.site == site))
    return int(found.scalar() or 0)


def on_offer(database: Database, site: str) -> OnOffer:
    """Everything that has to be served, for the server that does: halted and superseded releases are not."""
    with database.engine.connect() as connection:
        refs = [one.rollout.ref for one in needed(placed(connection, site))]
        bundles = connection.execute(
            select(release.c.offer, release.c.bundle)
            .where(release.c.site == site, release.c.ref.in_(refs))
            .order_by(release.c.published_at, release.c.version)
        ).all()
        plans = connection.execute(select(rollout).where(rollout.c.site == site)).all()
        groups = connection.execute(
            select(device_group.c.device, device_group.c.group_name).where(device_group.c.site == site)
        ).all()
        rotations = connection.execute(
            select(key_rotation.c.epoch, key_rotation.c.frame)
            .where(key_rotation.c.site == site)
            .order_by(key_rotation.c.epoch)
        ).all()
    return OnOffer(
        tuple((bytes(row.offer), bytes(row.bundle)) for row in bundles),
        {bytes(row.ref): rollout_of(row) for row in plans},
        {row.device: row.group_name for row in groups},
        tuple((int(row.epoch), bytes(row.frame)) for row in rotations),
    )


def published(database: Database, site: str) -> list[StoredRelease]:
    """Every release with its rollout and how many terminals it has reached, oldest first."""
    with database.engine.connect() as connection:
        rows = _published_rows(connection, site)
        newest_key = newest_epoch(connection, site)
        counted = connection.execute(
            select(rollout_device.c.ref, rollout_device.c.outcome, func.count())
            .where(rollout_device.c.site == site)
            .group_by(rollout_device.c.ref, rollout_device.c.outcome)
        ).all()
    outcomes: dict[bytes, dict[str, int]] = {}
    for ref, outcome, count in counted:
        outcomes.setdefault(bytes(ref), {})[outcome] = count
    none = {outcome.value: 0 for outcome in Outcome}
    known = [_placed(row) for row in rows]
    found = []
    for row, one in zip(rows, known, strict=True):
        ref, instead = one.rollout.ref, superseded_by(one, known)
        key_epoch = Offer.decode(bytes(row.offer)).key_epoch
        found.append(
            StoredRelease(
                ref, one.version, one.hardware, one.size_bytes, row.published_at, one.rollout, row.reason,
                none | outcomes.get(ref, {}), None if instead is None else instead.version, key_epoch,
                key_epoch < newest_key,
            )
        )  # fmt: skip
    return found


def terminals(database: Database, site: str) -> list[TerminalUpdate]:
    """Every registered terminal by name, and where its updates stand."""
    with database.engine.connect() as connection:
        rows = connection.execute(_terminals_query(site)).all()
        said = {
            (row.device, row.layer): row
            for row in connection.execute(select(update_state).where(update_state.c.site == site))
        }
        asked = {
            (row.device, _layer_of(row.hardware)): row
            for row in connection.execute(
                select(update_question)
                .where(update_question.c.site == site)
                .order_by(update_question.c.asked_at)
            )
        }
        last = {(row.device, _layer_of(row.hardware or "")): row for row in _outcomes(connection, site)}

    def layer_of(row: Row[Any], layer: str) -> LayerUpdate | None:
        key = row.device, layer
        if layer == IMAGE and key not in said and key not in asked:
            return None
        running = row.running if layer == APPLICATION else None
        return _layer(said.get(key), asked.get(key), last.get(key), running)

    found = []
    for row in rows:
        online = None if row.online is None else bool(row.online)
        application = layer_of(row, APPLICATION)
        assert application is not None
        found.append(
            TerminalUpdate(row.device, row.group_name or "", online, application, layer_of(row, IMAGE))
        )
    return found


def _layer_of(hardware: str) -> str:
    return IMAGE if hardware.endswith(IMAGE_CLASS_SUFFIX) else APPLICATION


def _terminals_query(site: str) -> Select[Any]:
    query = select(device.c.device, device_group.c.group_name, presence.c.online, presence.c.running)
    query = query.select_from(device)
    for table in (device_group, presence):
        query = query.outerjoin(table, (table.c.site == device.c.site) & (table.c.device == device.c.device))
    return query.where(device.c.site == site).order_by(device.c.device)


def _outcomes(connection: Connection, site: str) -> Sequence[Row[Any]]:
    """What became of each release on each terminal, oldest first; without a class once it is withdrawn."""
    same = (release.c.site == rollout_device.c.site) & (release.c.ref == rollout_device.c.ref)
    return connection.execute(
        select(rollout_device, release.c.hardware)
        .outerjoin(release, same)
        .where(rollout_device.c.site == site)
        .order_by(rollout_device.c.changed_at)
    ).all()


def _layer(
    said: Row[Any] | None, asked: Row[Any] | None, last: Row[Any] | None, present: int | None
) -> LayerUpdate:
    """A layer from its last report, its last question, the last release offered, and what is known to run."""
    return LayerUpdate(
        hardware="" if asked is None else asked.hardware,
        running=present if said is None else said.running,
        slot=None if said is None else said.slot,
        state=None if said is None else said.state,
        offset=None if said is None else said._mapping["offset"],
        reason=0 if said is None else said.reason,
        seen_at=None if said is None else said.seen_at,
        asked_at=None if asked is None else asked.asked_at,
        release=None if last is None else bytes(last.ref),
        outcome="" if last is None else last.outcome,
        failure=0 if last is None else last.reason,
    )


def is_registered(database: Database, site: str, name: str) -> bool:
    """Whether there is such a terminal, in whatever state."""
    known = select(device.c.device).where(device.c.site == site, device.c.device == name)
    with database.engine.connect() as connection:
        return connection.execute(known).one_or_none() is not None


def history(database: Database, site: str, name: str) -> list[HistoryStep]:
    """The last steps of a terminal's updates, oldest first; none for one that is not registered."""
    columns = update_history.c
    with database.engine.connect() as connection:
        rows = connection.execute(
            select(columns.at, columns.ref, columns.running, columns.slot, columns.state, columns.reason)
            .where(columns.site == site, columns.device == name)
            .order_by(columns.number)
        )
        return [HistoryStep(*row) for row in rows]
