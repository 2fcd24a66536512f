"""What a run came to, and its JSON form `tableside.bench/1`, which other tools read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.errors import BenchError
from bench.measure import ERROR, FAIL, PASS, Measurement

SCHEMA = "tableside.bench/1"
EXIT_CODES = {PASS: 0, FAIL: 1, ERROR: 2}


@dataclass(frozen=True)
class CaseResult:
    """One case: `detail` says what was seen, for a skip why, for a failure what broke."""

    name: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    console: str = ""


@dataclass
class SuiteResult:
    """One suite's cases and measurements."""

    name: str
    cases: list[CaseResult] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """The worst of its parts; a skip is no failure."""
        return worst([c.outcome for c in self.cases] + [m.outcome for m in self.measurements])


@dataclass
class BoardInfo:
    """What was tested: kind of board, digest of the firmware image, MicroPython, commit of the sources."""

    name: str
    firmware: str = ""
    micropython: str = ""
    commit: str = ""


@dataclass
class RunResult:
    """A whole run."""

    seed: int
    board: BoardInfo
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    suites: list[SuiteResult] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The worst of its suites."""
        return worst(suite.outcome for suite in self.suites)

    @property
    def cases(self) -> list[CaseResult]:
        """All cases of all suites."""
        return [case for suite in self.suites for case in suite.cases]


def worst(outcomes: Iterable[str]) -> str:
    """error over fail over pass."""
    found = set(outcomes)
    return ERROR if ERROR in found else FAIL if FAIL in found else PASS


def to_json(run: RunResult) -> dict[str, Any]:
    """The run in its stable JSON form."""
    return {
        "schema": SCHEMA,
        "started": run.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": run.seed,
        "board": {
            "name": run.board.name,
            "firmware": run.board.firmware,
            "micropython": run.board.micropython,
            "commit": run.board.commit,
        },
        "outcome": run.outcome,
        "suites": [_suite_to_json(suite) for suite in run.suites],
    }


def _suite_to_json(suite: SuiteResult) -> dict[str, Any]:
    return {
        "name": suite.name,
        "outcome": suite.outcome,
        "seconds": round(suite.seconds, 3),
        "cases": [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in suite.cases],
        "measurements": [
            {
                "name": m.name,
                "value": m.value,
                "unit": m.unit,
                "limit": m.limit,
                "outcome": m.outcome,
                "samples": m.samples,
                "spread": list(m.spread),
            }
            for m in suite.measurements
        ],
    }


def from_json(data: Mapping[str, Any]) -> RunResult:
    """Read a result file back (single observations and console logs are not in it).

    Raises: BenchError(BAD_RESULT) when it is not a result of this schema.
    """
    if data.get("schema") != SCHEMA:
        raise BenchError(
            "BAD_RESULT", f"This is not a bench result: its schema is {data.get('schema')!r}, not {SCHEMA!r}."
        )
    try:
        started = datetime.strptime(data["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        run = RunResult(int(data["seed"]), BoardInfo(**data["board"]), started)
        run.suites = [_suite_from_json(suite) for suite in data["suites"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError("BAD_RESULT", f"The result file is damaged: {error!r}.") from error
    return run


def _suite_from_json(data: Mapping[str, Any]) -> SuiteResult:
    cases: Sequence[CaseResult] = [CaseResult(c["name"], c["outcome"], c["detail"]) for c in data["cases"]]
    figures = [
        Measurement(m["name"], m["value"], m["unit"], m["limit"], m["outcome"], _observations(m))
        for m in data["measurements"]
    ]
    return SuiteResult(data["name"], list(cases), figures, float(data["seconds"]))


def _observations(data: Mapping[str, Any]) -> tuple[float, ...]:
    """Stand-ins that keep count and spread of observations the file no longer has."""
    low, high = data["spread"]
    count = int(data["samples"])
    return (low, *([data["value"]] * (count - 2)), high) if count > 1 else ()
