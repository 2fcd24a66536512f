"""The runner: verdicts, deadlines, evidence, and that one case's trouble stays its own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bench.boards.catalogue import BoardRequest
from bench.errors import BenchError, CaseFailed, check
from bench.measure import Measurement
from bench.results import BoardInfo, CaseResult, RunResult
from bench.rig import Rig, RigOptions
from bench.suites import NAMES, ON_REQUEST, load, load_all, load_default
from bench.suites.registry import Suite
from bench.suites.runner import Progress, Recorder, run_suite


class Silent(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        self.told.append(f"{suite}:{cases}")

    def case_begins(self, suite: str, case: str) -> None:
        self.told.append(case)

    def case_ends(self, suite: str, result: CaseResult) -> None:
        self.told.append(result.outcome)

    def measured(self, suite: str, figure: Measurement) -> None:
        self.told.append(figure.name)

    def suite_ends(self, suite: str, seconds: float) -> None:
        self.told.append(suite)


def run(
    suite: Suite, folder: Path, only: str | None = None, board: str = "process"
) -> tuple[RunResult, Silent]:
    result, progress = RunResult(1, BoardInfo(board)), Silent()
    with Rig(RigOptions(BoardRequest(board)), folder) as rig:
        run_suite(rig, suite, Recorder(result, progress), only)
    return result, progress


def test_every_kind_of_ending_has_its_outcome(tmp_path: Path) -> None:
    suite = Suite("s", "about")

    @suite.case("passes")
    def passes(rig: Rig) -> str:
        """Promise."""
        return "saw it"

    @suite.case("fails")
    def fails(rig: Rig) -> None:
        """Promise."""
        check(False, "saw something else")

    @suite.case("cannot_be_set_up")
    def cannot_be_set_up(rig: Rig) -> None:
        """Promise."""
        raise BenchError("NO_TOOL", "install it")

    @suite.case("crashes")
    def crashes(rig: Rig) -> None:
        """Promise."""
        raise ZeroDivisionError("x")

    @suite.case("is_async")
    async def is_async(rig: Rig) -> str:
        """Promise."""
        return "awaited"

    result, progress = run(suite, tmp_path)
    outcomes = {case.name: (case.outcome, case.detail) for case in result.cases}
    assert outcomes["passes"] == ("pass", "saw it")
    assert outcomes["fails"] == ("fail", "saw something else")
    assert outcomes["cannot_be_set_up"] == ("error", "NO_TOOL: install it")
    assert outcomes["crashes"] == ("error", "ZeroDivisionError: x")
    assert outcomes["is_async"] == ("pass", "awaited")
    assert "Traceback" in (tmp_path / "failures" / "s.crashes" / "detail.txt").read_text()
    assert progress.told[0] == "s:5"


def test_a_case_that_hangs_is_broken_off_at_its_deadline(tmp_path: Path) -> None:
    suite = Suite("s", "about")

    @suite.case("hangs", deadline_s=0.2)
    def hangs(rig: Rig) -> None:
        """Promise."""
        threading.Event().wait(30)

    result, _ = run(suite, tmp_path)
    assert result.cases[0].outcome == "fail"
    assert "longer than 0.2 s" in result.cases[0].detail


def test_a_figure_outside_its_limit_fails_the_suite_not_the_case(tmp_path: Path) -> None:
    suite = Suite("s", "about")

    @suite.case("measures")
    def measures(rig: Rig) -> None:
        """Promise."""
        rig.measure("rate", 1, "1/s", ">= 2")

    result, progress = run(suite, tmp_path)
    assert result.cases[0].outcome == "pass"
    assert result.outcome == "fail"
    assert "rate" in progress.told


def test_a_case_the_board_cannot_run_is_skipped_with_its_reason(tmp_path: Path) -> None:
    suite = Suite("s", "about")

    @suite.case("counts", features=("instret",))
    def counts(rig: Rig) -> None:
        """Promise."""
        raise CaseFailed("ran")

    result, _ = run(suite, tmp_path)
    assert (result.cases[0].outcome, result.outcome) == ("skip", "pass")
    assert "instret" in result.cases[0].detail


def test_a_suite_that_cannot_be_prepared_is_an_error_in_every_case(tmp_path: Path) -> None:
    suite = Suite("s", "about")

    @suite.setup
    def setup(rig: Rig) -> None:
        check(False, "no terminal")

    @suite.case("first")
    def first(rig: Rig) -> None:
        """Promise."""
        raise AssertionError("must not run")

    result, _ = run(suite, tmp_path)
    assert result.cases[0].outcome == "error"
    assert "no terminal" in result.cases[0].detail


def test_after_a_failure_the_suite_is_prepared_anew(tmp_path: Path) -> None:
    suite = Suite("s", "about")
    told = []

    @suite.setup
    def setup(rig: Rig) -> None:
        told.append("prepared")

    for name, passes in (("first", True), ("second", False), ("third", True)):

        @suite.case(name)
        def case(rig: Rig, name: str = name, passes: bool = passes) -> None:
            """Promise."""
            told.append(name)
            check(passes, "no")

    run(suite, tmp_path)
    assert told == ["prepared", "first", "second", "prepared", "third"]


def test_only_the_named_case_runs(tmp_path: Path) -> None:
    suite = Suite("s", "about")
    ran = []
    for name in ("one", "two"):

        @suite.case(name)
        def case(rig: Rig, name: str = name) -> None:
            """Promise."""
            ran.append(name)

    run(suite, tmp_path, only="two")
    assert ran == ["two"]


def test_a_case_needs_a_promise_and_a_name_of_its_own() -> None:
    suite = Suite("s", "about")

    def silent(rig: Rig) -> None:
        pass

    with pytest.raises(BenchError):
        suite.case("silent")(silent)


def test_an_unknown_suite_is_named_with_those_there_are() -> None:
    with pytest.raises(BenchError, match="signing"):
        load("singing")


def test_the_default_run_has_at_least_sixty_cases() -> None:
    suites = load_default()
    assert [suite.name for suite in suites] == [name for name in NAMES if name not in ON_REQUEST]
    assert sum(len(suite.cases) for suite in suites) >= 60


def test_all_cases_have_different_names() -> None:
    suites = load_all()
    assert [suite.name for suite in suites] == list(NAMES)
    names = [case.name for suite in suites for case in suite.cases]
    assert len(names) == len(set(names))


def test_every_threat_of_the_protocol_is_a_case_of_the_signing_suite() -> None:
    page = (
        (Path(__file__).parents[3] / "docs" / "protocol.md")
        .read_text()
        .split("## 10. Threats")[1]
        .split("\n## ")[0]
    )
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|")][2:]
    wanted = {row[3].strip().strip("`") for row in rows}
    assert len(wanted) >= 30
    assert wanted <= {case.name for case in load("signing").cases}
