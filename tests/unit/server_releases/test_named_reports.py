"""A report that names its release is booked on that one, however late it comes; older terminals' by guess."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_rollouts import (
    CONFIRMED,
    NEW,
    NEWER,
    OLD,
    OTHER,
    REF,
    RELEASE,
    ROLLED_BACK,
    SITE,
    STAGING,
    TRIAL,
    publish,
    report,
    rollout,
)

from server.releases import words
from server.releases.rollout import Outcome, RolloutState, outcome_of
from server.storage import release_reads
from server.storage.database import Database
from server.storage.update_reports import Offered
from server.wire.updates import OtaState

DEVICE = "t-0001"
GIVEN_UP, NOTHING = 9, {"offered": 0, "started": 0, "installed": 0, "failed": 0}


def said(state: int, ref: bytes | None, running: int = OLD, reason: int = 0) -> OtaState:
    return OtaState(running, 0, state, 0, reason, ref)


def both(database: Database) -> None:
    """The first release is under way on the terminal when the second is offered."""
    publish(database)
    report(database, (DEVICE, Offered(REF, NEW)), (DEVICE, said(STAGING, REF)))
    publish(database, replace(RELEASE, ref=OTHER, version=NEWER))
    report(database, (DEVICE, Offered(OTHER, NEWER)), (DEVICE, said(STAGING, OTHER)))


def outcomes(database: Database) -> tuple[dict[str, int], dict[str, int]]:
    return rollout(database).outcomes, rollout(database, OTHER).outcomes


@pytest.mark.parametrize("name", [REF, REF[:6]], ids=["whole", "as a quarantine keeps it"])
def test_a_late_failure_counts_against_its_own_release_and_halts_that_alone(
    database: Database,
    name: bytes,
) -> None:
    both(database)
    report(database, (DEVICE, said(ROLLED_BACK, name, reason=words.TRIES_SPENT)))
    assert outcomes(database) == (NOTHING | {"failed": 1}, NOTHING | {"started": 1})
    assert rollout(database).rollout.state is RolloutState.HALTED
    assert rollout(database, OTHER).rollout.state is RolloutState.RUNNING
    assert release_reads.history(database, SITE, DEVICE)[-1].ref == REF


def test_without_a_name_the_same_report_is_taken_for_the_release_that_was_begun_last(
    database: Database,
) -> None:
    both(database)
    report(database, (DEVICE, said(ROLLED_BACK, None, reason=words.TRIES_SPENT)))
    assert outcomes(database) == (NOTHING | {"offered": 1}, NOTHING | {"failed": 1})


def test_a_download_given_up_late_says_nothing_of_the_next_release(database: Database) -> None:
    both(database)
    report(database, (DEVICE, said(CONFIRMED, REF, reason=GIVEN_UP)))
    assert outcomes(database)[1] == NOTHING | {"started": 1}
    assert outcomes(database)[0]["failed"] == 1


def test_a_release_installed_late_is_counted_although_another_was_begun(database: Database) -> None:
    both(database)
    report(database, (DEVICE, said(CONFIRMED, REF, NEW)))
    assert outcomes(database) == (NOTHING | {"installed": 1}, NOTHING | {"started": 1})


@pytest.mark.parametrize("name", [b"", b"unknown!", b"unknow"], ids=["none", "unknown", "unknown prefix"])
def test_a_report_about_no_known_release_is_remembered_and_booked_nowhere(
    database: Database,
    name: bytes,
) -> None:
    both(database)
    before = outcomes(database)
    report(database, (DEVICE, said(ROLLED_BACK, name, reason=words.TRIES_SPENT)))
    assert outcomes(database) == before
    last = release_reads.history(database, SITE, DEVICE)[-1]
    assert (last.state, last.reason) == (ROLLED_BACK, words.TRIES_SPENT)
    assert last.ref == (name if len(name) == 8 else None)


def test_the_same_step_of_another_release_is_a_step_of_its_own(database: Database) -> None:
    both(database)
    report(database, *((DEVICE, said(CONFIRMED, ref, reason=GIVEN_UP)) for ref in (REF, OTHER, OTHER)))
    assert [step.ref for step in release_reads.history(database, SITE, DEVICE)][-2:] == [REF, OTHER]


def test_a_named_reason_speaks_before_the_terminal_was_seen_to_begin() -> None:
    for reason, after in (
        (words.WRONG_CODE, Outcome.FAILED),
        (words.QUARANTINED, Outcome.FAILED),
        (13, Outcome.OFFERED),
    ):
        assert outcome_of(Outcome.OFFERED, NEW, said(CONFIRMED, REF, reason=reason)) is after
        assert outcome_of(Outcome.OFFERED, NEW, said(CONFIRMED, None, reason=reason)) is Outcome.OFFERED


def test_flash_that_lost_a_release_does_not_speak_against_it(database: Database) -> None:
    both(database)
    for state, reason in ((ROLLED_BACK, words.SLOT_BAD), (CONFIRMED, words.SLOT_BAD), (1, 0)):
        report(database, (DEVICE, said(state, OTHER, reason=reason)))
    report(database, (DEVICE, said(ROLLED_BACK, OTHER, reason=words.FLASH_FAILS)))
    report(database, (DEVICE, said(CONFIRMED, OTHER, reason=words.FLASH_FAILS)))
    assert outcomes(database)[1] == NOTHING | {"started": 1}
    assert rollout(database, OTHER).rollout.state is RolloutState.RUNNING


def test_an_installed_release_that_does_not_last_fails_after_all(database: Database) -> None:
    both(database)
    report(database, (DEVICE, said(CONFIRMED, REF, NEW)))
    report(database, (DEVICE, said(CONFIRMED, REF[:6], reason=words.CRASH_LOOP)))
    assert outcomes(database)[0] == NOTHING | {"failed": 1}
    assert rollout(database).rollout.state is RolloutState.HALTED
    report(database, (DEVICE, said(CONFIRMED, REF, NEW)))
    assert outcomes(database)[0] == NOTHING | {"installed": 1}


def test_a_release_that_failed_may_still_be_installed_and_does_not_begin_anew() -> None:
    assert outcome_of(Outcome.FAILED, NEW, said(TRIAL, REF, NEW)) is Outcome.FAILED
    assert outcome_of(Outcome.FAILED, NEW, said(CONFIRMED, REF, NEW)) is Outcome.INSTALLED
