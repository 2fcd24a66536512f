"""What terminals report about their updates, as one job of the writer: history, outcomes, automatic halts.

The job runs in the writer's transaction, so a failure is counted and the rollout halted in the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.releases.rollout import Outcome, Rollout, RolloutState, halt_reason, outcome_of
from server.storage.transaction import Transaction
from server.wire.freshness import OtaAsk
from server.wire.updates import REFERENCE_BYTES, OtaState

KEPT_STEPS = 200


@dataclass(frozen=True, slots=True)
class Offered:
    """A terminal was told about a release, ``ref`` being 8 bytes."""

    ref: bytes
    version: int


Report = OtaState | OtaAsk | Offered


@dataclass(frozen=True, slots=True)
class StoreReports:
    """Writer job: (device, report) in the order in which they came."""

    site: str
    reports: Sequence[tuple[str, Report]]
    now_s: int

    def __call__(self, transaction: Transaction) -> None:
        for device, report in self.reports:
            if isinstance(report, OtaAsk):
                self._asked(transaction, device, report)
            elif isinstance(report, Offered):
                self._offered(transaction, device, report)
            else:
                self._said(transaction, device, report)

    def _asked(self, transaction: Transaction, device: str, ask: OtaAsk) -> None:
        transaction.execute(
            "INSERT INTO update_question (site, device, hardware, running, key_epoch, asked_at) "
            "VALUES (?,?,?,?,?,?) ON CONFLICT (site, device, hardware) DO UPDATE SET "
            "running = excluded.running, key_epoch = excluded.key_epoch, asked_at = excluded.asked_at",
            (self.site, device, ask.hardware, ask.running, ask.key_epoch, self.now_s),
        )

    def _offered(self, transaction: Transaction, device: str, offered: Offered) -> None:
        transaction.execute(
            "INSERT INTO rollout_device (site, ref, device, version, outcome, reason, changed_at) "
            "VALUES (?,?,?,?,'offered',0,?) ON CONFLICT (site, ref, device) DO NOTHING",
            (self.site, offered.ref, device, offered.version, self.now_s),
        )

    def _said(self, transaction: Transaction, device: str, said: OtaState) -> None:
        rows = transaction.execute(
            "SELECT ref, version, outcome FROM rollout_device WHERE site = ? AND device = ? "
            "ORDER BY changed_at, version",
            (self.site, device),
        ).fetchall()
        target = _target(rows, said)
        self._remember(transaction, device, said, bytes(target[0]) if target else _whole(said.ref))
        if target is None:
            return
        ref, version, before = bytes(target[0]), int(target[1]), Outcome(target[2])
        after = outcome_of(before, version, said)
        if after is before:
            return
        if after is Outcome.STARTED:  # whatever it had begun before is given up for this one
            transaction.execute(
                "UPDATE rollout_device SET outcome = 'offered' WHERE site = ? AND device = ? "
                "AND outcome = 'started'",
                (self.site, device),
            )
        transaction.execute(
            "UPDATE rollout_device SET outcome = ?, reason = ?, changed_at = ? "
            "WHERE site = ? AND ref = ? AND device = ?",
            (after.value, said.reason, self.now_s, self.site, ref, device),
        )
        if after is Outcome.FAILED:
            self._judge(transaction, ref, device, said.reason)

    def _remember(self, transaction: Transaction, device: str, said: OtaState, ref: bytes | None) -> None:
        """Add a step to the terminal's history if anything but the download's progress changed."""
        last = transaction.execute(
            "SELECT number, running, slot, state, reason, ref FROM update_history "
            "WHERE site = ? AND device = ? ORDER BY number DESC LIMIT 1",
            (self.site, device),
        ).fetchone()
        step = (said.running, said.slot, said.state, said.reason)
        if last is not None and tuple(last[1:5]) == step and _same(last[5], ref):
            return
        number = 1 if last is None else int(last[0]) + 1
        transaction.execute(
            "INSERT INTO update_history (site, device, number, ref, running, slot, state, reason, at) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            (self.site, device, number, ref, *step, self.now_s),
        )
        transaction.execute(
            "DELETE FROM update_history WHERE site = ? AND device = ? AND number <= ?",
            (self.site, device, number - KEPT_STEPS),
        )

    def _judge(self, transaction: Transaction, ref: bytes, device: str, reason: int) -> None:
        """Halt the rollout if too many terminals failed."""
        row = transaction.execute(
            "SELECT state, share, group_name, halt_percent, halt_failures FROM rollout "
            "WHERE site = ? AND ref = ?",
            (self.site, ref),
        ).fetchone()
        if row is None or row[0] == RolloutState.HALTED:
            return
        counted = dict(
            transaction.execute(
                "SELECT outcome, COUNT(*) FROM rollout_device WHERE site = ? AND ref = ? GROUP BY outcome",
                (self.site, ref),
            ).fetchall()
        )
        installed, failed = counted.get(Outcome.INSTALLED, 0), counted.get(Outcome.FAILED, 0)
        if not Rollout(ref, RolloutState(row[0]), *row[1:]).must_halt(installed, failed):
            return
        transaction.execute(
            "UPDATE rollout SET state = 'halted', reason = ?, changed_at = ? WHERE site = ? AND ref = ?",
            (halt_reason(installed, failed, device, reason), self.now_s, self.site, ref),
        )
        transaction.execute(
            "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'admin_revision'", ()
        )


def _whole(ref: bytes | None) -> bytes | None:
    """A reference as the history keeps it, None for a shortened one or none."""
    return ref if ref is not None and len(ref) == REFERENCE_BYTES else None


def _same(stored: bytes | None, ref: bytes | None) -> bool:
    return (None if stored is None else bytes(stored)) == ref


def _target(rows: Sequence[tuple[bytes, int, str]], said: OtaState) -> tuple[bytes, int, str] | None:
    """The offered release a report is about: the one it names, whatever came of it until now.

    An older terminal names none: then it is the one it runs, has begun, or was offered last, as long as
    nothing is known to have come of it.
    """
    if said.ref is not None:
        return next((row for row in rows if said.ref and bytes(row[0]).startswith(said.ref)), None)
    still = [row for row in rows if row[2] in (Outcome.OFFERED, Outcome.STARTED)]
    for row in still:
        if row[1] == said.running:
            return row
    begun = [row for row in still if row[2] == Outcome.STARTED]
    fresh = [row for row in still if row[2] == Outcome.OFFERED]
    first, second = (fresh, begun) if said.state == 1 else (begun, fresh)
    found = first or second
    return found[-1] if found else None
