"""Runs a suite on a rig: deadlines, verdicts, evidence of failures, progress."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from bench.errors import BenchError, CaseFailed, DeadlinePassed, RpcRefused
from bench.measure import ERROR, FAIL, PASS, SKIP, Measurement
from bench.results import CaseResult, RunResult, SuiteResult
from bench.rig import Rig
from bench.suites.registry import Case, Suite

CONSOLE_TAIL_CHARS = 20_000
PREPARE_DEADLINE_S = 120.0


class Progress(ABC):
    """Told what happens while it happens; everything it is told can be pickled."""

    @abstractmethod
    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        """A suite is about to run that many cases."""

    @abstractmethod
    def case_begins(self, suite: str, case: str) -> None:
        """A case starts."""

    @abstractmethod
    def case_ends(self, suite: str, result: CaseResult) -> None:
        """A case is judged."""

    @abstractmethod
    def measured(self, suite: str, figure: Measurement) -> None:
        """A figure was taken."""

    @abstractmethod
    def suite_ends(self, suite: str, seconds: float) -> None:
        """A suite is through, whatever came of it."""


class Recorder(Progress):
    """Keeps everything in a result, as it comes, and tells it on: an interrupted run keeps what it had."""

    def __init__(self, run: RunResult, onward: Progress) -> None:
        self._run = run
        self._onward = onward
        self._suites: dict[str, SuiteResult] = {}

    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        self._suites[suite] = SuiteResult(suite)
        self._run.suites.append(self._suites[suite])
        self._onward.suite_begins(suite, about, cases)

    def case_begins(self, suite: str, case: str) -> None:
        self._onward.case_begins(suite, case)

    def case_ends(self, suite: str, result: CaseResult) -> None:
        self._suites[suite].cases.append(result)
        self._onward.case_ends(suite, result)

    def measured(self, suite: str, figure: Measurement) -> None:
        self._suites[suite].measurements.append(figure)
        self._onward.measured(suite, figure)

    def suite_ends(self, suite: str, seconds: float) -> None:
        self._suites[suite].seconds = seconds
        self._onward.suite_ends(suite, seconds)


def run_suite(rig: Rig, suite: Suite, progress: Progress, only: str | None = None) -> None:
    """Run a suite (of one case name only, if given) and tell `progress` every result.

    Raises: BenchError when the rig itself cannot be had (nothing was judged).
    """
    cases = suite.chosen(only)
    progress.suite_begins(suite.name, suite.about, len(cases))
    began = time.monotonic()
    try:
        _run_cases(rig, suite, cases, progress)
    finally:
        progress.suite_ends(suite.name, time.monotonic() - began)


def _run_cases(rig: Rig, suite: Suite, cases: Sequence[Case], progress: Progress) -> None:
    broken = _prepare(rig, suite)
    for case in cases:
        progress.case_begins(suite.name, case.name)
        if broken is None:
            verdict = _run_case(rig, suite, case)
        else:
            verdict = CaseResult(case.name, broken.outcome, broken.detail, console=broken.console)
        progress.case_ends(suite.name, verdict)
        if broken is None and verdict.outcome in (FAIL, ERROR):
            broken = _prepare(rig, suite)  # what follows finds the rig as the suite expects it
        for figure in rig.measurements:
            progress.measured(suite.name, figure)
        rig.measurements.clear()


def _prepare(rig: Rig, suite: Suite) -> CaseResult | None:
    prepare = suite.prepare
    if prepare is None:
        return None

    def run(rig: Rig) -> None:
        prepare(rig)

    verdict = _run_case(rig, suite, Case("setup", run, "prepare the suite", PREPARE_DEADLINE_S))
    if verdict.outcome == PASS:
        return None
    return CaseResult(
        "setup", ERROR, f"the suite could not be prepared: {verdict.detail}", 0.0, verdict.console
    )


def _run_case(rig: Rig, suite: Suite, case: Case) -> CaseResult:
    missing = sorted(case.features - rig.features)
    if missing:
        return CaseResult(case.name, SKIP, f"{rig.set_up} has no {', '.join(missing)}")
    began = time.monotonic()
    outcome, detail = _judge(rig, case)
    seconds = time.monotonic() - began
    console = ""
    if outcome != PASS:
        name = f"{suite.name}.{case.name}"
        kept = rig.keep_evidence(name)
        (kept / "detail.txt").write_text(detail + "\n")
        console = rig.console_tail(CONSOLE_TAIL_CHARS)
        detail = detail.strip().splitlines()[-1] if detail.strip() else outcome
        try:
            rig.recover()
        except (BenchError, CaseFailed) as error:
            detail += f" (and the rig could not be put right: {error})"
    return CaseResult(case.name, outcome, detail, seconds, console)


def _judge(rig: Rig, case: Case) -> tuple[str, str]:
    try:
        with deadline(case.deadline_s, case.name):
            said = case.run(rig)
            if inspect.iscoroutine(said):
                said = asyncio.run(said)
        rig.settle()
    except (CaseFailed, RpcRefused, AssertionError) as error:
        return FAIL, str(error) or type(error).__name__
    except BenchError as error:
        return ERROR, f"{error.code}: {error.text}"
    except Exception as error:  # noqa: BLE001 - a case is foreign code: whatever it throws is its result, with the traceback kept
        return ERROR, f"{traceback.format_exc()}\n{type(error).__name__}: {error}"
    return PASS, str(said) if said else ""


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Break into the main thread after `seconds`: the net under the nearer deadlines inside.

    Raises: DeadlinePassed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise DeadlinePassed(f"{what} took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
