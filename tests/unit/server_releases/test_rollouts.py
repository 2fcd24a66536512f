"""Staged rollouts: who gets a release, what reports make of it, when it halts by itself; over restarts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from database_kit import transaction
from release_kit import offer, rotation

from server.config import ConfigError
from server.devices.records import DeviceState
from server.releases.publishing import share_of
from server.releases.rollout import Outcome, Rollout, RolloutState, outcome_of, place
from server.storage import release_reads, releases
from server.storage.database import Database, open_database
from server.storage.releases import NewRelease, ReleaseError
from server.storage.update_reports import KEPT_STEPS, Offered, Report, StoreReports
from server.wire.updates import OtaState

SITE = "demo"
OLD, NEW, NEWER = 0x0100, 0x0101, 0x0102
REF, OTHER = b"release1", b"release2"
PLAN = Rollout(REF, RolloutState.RUNNING, 10_000)
RELEASE = NewRelease(REF, NEW, "process", offer(1), b"bundle", (OLD, OLD), bytes(32), 1)
CONFIRMED, STAGING, TRIAL, ROLLED_BACK = 0, 1, 4, 5


def said(state: int, running: int = OLD, reason: int = 0) -> OtaState:
    return OtaState(running, 0, state, 0, reason)


def publish(database: Database, new: NewRelease = RELEASE, plan: Rollout = PLAN) -> bool:
    return releases.publish(database, SITE, new, replace(plan, ref=new.ref), 1)


def report(database: Database, *reports: tuple[str, Report]) -> None:
    """Store reports as the writer does: one transaction, on a plain connection."""
    with closing(database.driver_connection()) as connection, transaction(connection):
        StoreReports(SITE, reports, 7)(connection)


def rollout(database: Database, ref: bytes = REF) -> release_reads.StoredRelease:
    return next(one for one in release_reads.published(database, SITE) if one.ref == ref)


# ---------------------------------------------------------------- who gets it


def test_a_place_is_fixed_and_a_larger_share_contains_the_smaller() -> None:
    names = [f"t-{number:04d}" for number in range(2000)]
    few = {name for name in names if replace(PLAN, share=100).includes(name, "")}
    many = {name for name in names if replace(PLAN, share=2500).includes(name, "")}
    assert few < many
    assert 10 <= len(few) <= 35
    assert 430 <= len(many) <= 570
    assert all(PLAN.includes(name, "") for name in names)
    assert not any(replace(PLAN, share=0).includes(name, "") for name in names)
    assert place("t-0001", REF) == place("t-0001", REF) == 3387
    assert few != {name for name in names if replace(PLAN, ref=OTHER, share=100).includes(name, "")}


def test_a_group_gets_what_is_for_it_and_nobody_else_does() -> None:
    plan = replace(PLAN, group="terrace")
    assert plan.includes("t-0001", "terrace")
    assert not plan.includes("t-0001", "")
    assert not plan.includes("t-0001", "bar")


@pytest.mark.parametrize("text", ["-1", "100.01", "0.001", "x", "nan", "1e9", "1e999999", "1e-999999", ""])
def test_a_share_is_a_percentage_in_hundredths(text: str) -> None:
    assert (share_of("0"), share_of("0.01"), share_of("12.5"), share_of("100")) == (0, 1, 1250, 10_000)
    with pytest.raises(ConfigError):
        share_of(text)


# ---------------------------------------------------------------- publishing


def test_publishing_again_changes_nothing(database: Database) -> None:
    assert publish(database)
    releases.set_rollout(database, SITE, REF, 2, share=100)
    assert not publish(database)
    assert rollout(database).rollout.share == 100


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (replace(RELEASE, ref=OTHER), "VERSION_TAKEN"),
        (replace(RELEASE, ref=OTHER, version=OLD), "LOWER_VERSION"),
        (replace(RELEASE, ref=OTHER, version=NEWER, image_digest=bytes(31) + b"!"), "IMAGE_TAKEN"),
    ],
)
def test_what_must_not_be_published_is_refused_by_name(
    database: Database, new: NewRelease, code: str
) -> None:
    publish(database)
    with pytest.raises(ReleaseError) as refused:
        publish(database, new)
    assert refused.value.code == code
    assert [one.ref for one in release_reads.published(database, SITE)] == [REF]


def test_one_image_number_may_be_used_again_for_the_same_image(database: Database) -> None:
    publish(database)
    assert publish(database, replace(RELEASE, ref=OTHER, version=NEWER))
    assert publish(
        database, replace(RELEASE, ref=b"release3", hardware="esp32-rv32imc", image_digest=b"x" * 32)
    )


# ---------------------------------------------------------------- what became of it


def test_a_terminal_that_runs_it_has_it(database: Database) -> None:
    publish(database)
    report(
        database,
        ("t-0001", Offered(REF, NEW)),
        ("t-0001", said(STAGING)),
        ("t-0001", said(TRIAL, NEW)),
        ("t-0001", said(CONFIRMED, NEW)),
    )
    assert rollout(database).outcomes == {"offered": 0, "started": 0, "installed": 1, "failed": 0}
    steps = release_reads.history(database, SITE, "t-0001")
    assert [(step.state, step.running) for step in steps] == [(STAGING, OLD), (TRIAL, NEW), (CONFIRMED, NEW)]


def test_one_rollback_of_one_halts_the_rollout_and_names_the_cause(database: Database) -> None:
    publish(database)
    report(
        database,
        ("t-0001", Offered(REF, NEW)),
        ("t-0001", said(STAGING)),
        ("t-0001", said(ROLLED_BACK, OLD, 1)),
    )
    halted = rollout(database)
    assert (halted.rollout.state, halted.outcomes["failed"]) == (RolloutState.HALTED, 1)
    assert "1 of 1 terminals failed, last t-0001: the new release was started three times" in halted.reason
    with pytest.raises(ReleaseError, match="halted"):
        releases.set_rollout(database, SITE, REF, 9, share=10_000)
    with pytest.raises(ReleaseError, match="--despite-failures"):
        releases.move(database, SITE, REF, RolloutState.RUNNING, "", 9)
    releases.move(database, SITE, REF, RolloutState.RUNNING, "", 9, despite=True)
    assert rollout(database).rollout.state is RolloutState.RUNNING


def test_a_failure_below_the_threshold_does_not_halt(database: Database) -> None:
    publish(database, plan=replace(PLAN, halt_percent=50, halt_failures=2))
    for number in range(2):
        report(database, (f"t-{number}", Offered(REF, NEW)), (f"t-{number}", said(CONFIRMED, NEW)))
    for number in (2, 3):
        assert rollout(database).rollout.state is RolloutState.RUNNING
        report(database, (f"t-{number}", Offered(REF, NEW)), (f"t-{number}", said(ROLLED_BACK, OLD, 1)))
    assert rollout(database).rollout.state is RolloutState.HALTED


def test_the_reason_of_an_older_release_does_not_count_against_a_new_one(database: Database) -> None:
    publish(database)
    report(database, ("t-0001", Offered(REF, NEW)), ("t-0001", said(CONFIRMED, OLD, 1)))
    assert rollout(database).outcomes["offered"] == 1
    report(database, ("t-0001", said(STAGING)), ("t-0001", said(CONFIRMED, OLD, 9)))
    assert rollout(database).outcomes["failed"] == 1


def test_a_rollback_counts_against_the_release_that_was_begun(database: Database) -> None:
    publish(database)
    report(database, ("t-0001", Offered(REF, NEW)), ("t-0001", said(TRIAL, NEW)))
    publish(database, replace(RELEASE, ref=OTHER, version=NEWER))
    report(database, ("t-0001", Offered(OTHER, NEWER)), ("t-0001", said(ROLLED_BACK, OLD, 1)))
    assert rollout(database).outcomes["failed"] == 1
    assert rollout(database, OTHER).outcomes == {"offered": 1, "started": 0, "installed": 0, "failed": 0}


def test_outcomes_never_go_back_from_installed() -> None:
    assert outcome_of(Outcome.INSTALLED, NEW, said(ROLLED_BACK, OLD, 1)) is Outcome.INSTALLED
    assert outcome_of(Outcome.FAILED, NEW, said(STAGING)) is Outcome.FAILED
    assert outcome_of(Outcome.FAILED, NEW, said(CONFIRMED, NEW)) is Outcome.INSTALLED


def test_everything_survives_a_restart(database: Database, tmp_path: Path) -> None:
    publish(database, plan=replace(PLAN, share=100, group="terrace"))
    with database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO device (site, device, kid, spki, table_id, state, password_hash, created_at) "
            f"VALUES ('demo', 't-0001', '01', '02', '4', '{DeviceState.ACTIVE.value}', '', 1)"
        )
    releases.set_group(database, SITE, "t-0001", "terrace")
    statement = rotation(1, 2)
    new = replace(RELEASE, ref=OTHER, version=NEWER, offer=offer(2), key_epoch=2)
    releases.publish(database, SITE, new, replace(PLAN, ref=OTHER), 2, [statement])
    report(database, ("t-0001", Offered(REF, NEW)), ("t-0001", said(STAGING)))
    before = release_reads.on_offer(database, SITE)
    with closing(open_database(tmp_path)) as again:
        assert release_reads.on_offer(again, SITE) == before
        assert before.groups == {"t-0001": "terrace"}
        assert before.rotations == ((2, statement.frame),)
        report(again, ("t-0001", said(ROLLED_BACK, OLD, 1)))
        assert rollout(again).rollout.state is RolloutState.HALTED


def test_a_history_is_bounded_and_progress_alone_is_no_step(database: Database) -> None:
    report(database, *[("t-0001", OtaState(OLD, 0, STAGING, offset, 0)) for offset in range(50)])
    assert len(release_reads.history(database, SITE, "t-0001")) == 1
    report(database, *[("t-0001", said(CONFIRMED, OLD, number % 2)) for number in range(2 * KEPT_STEPS)])
    assert len(release_reads.history(database, SITE, "t-0001")) == KEPT_STEPS
