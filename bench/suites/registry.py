"""How a suite is written: a `Suite`, and functions that become its cases in the order they stand in the file.

    SUITE = Suite("boot", "A terminal comes up and says who it is.")

    @SUITE.case("a_fresh_terminal_boots")
    def a_fresh_terminal_boots(rig: Rig) -> str | None:
        '''The promise in one sentence; it is what `bench list` shows.'''

A case gets the rig, raises CaseFailed (or uses `check`) when a promise is broken, and may return what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from bench.rig import Rig

CASE_DEADLINE_S = 60.0
CaseFunction = Callable[[Rig], str | None] | Callable[[Rig], Coroutine[Any, Any, str | None]]


@dataclass(frozen=True)
class Case:
    """One promise. `features`: what the board must declare; `threat`: the protocol's threat it answers."""

    name: str
    run: CaseFunction
    promise: str
    deadline_s: float = CASE_DEADLINE_S
    features: frozenset[str] = frozenset()
    threat: str = ""


class Suite:
    """Cases that share a rig and run in order; one that runs `alone` takes times others would spoil."""

    def __init__(self, name: str, about: str, *, alone: bool = False) -> None:
        self.name = name
        self.about = about
        self.alone = alone
        self.cases: list[Case] = []
        self.prepare: Callable[[Rig], None] | None = None

    def case(
        self,
        name: str,
        *,
        deadline_s: float = CASE_DEADLINE_S,
        features: tuple[str, ...] = (),
        threat: str = "",
    ) -> Callable[[CaseFunction], CaseFunction]:
        """Register a case; its docstring's first line is the promise.

        Raises: BenchError(BAD_SUITE) when the name is taken or the promise missing.
        """

        def register(function: CaseFunction) -> CaseFunction:
            promise = (function.__doc__ or "").strip().split("\n")[0]
            if not promise or any(case.name == name for case in self.cases):
                raise BenchError(
                    "BAD_SUITE", f"Case {name!r} of suite {self.name} needs a promise and a name of its own."
                )
            self.cases.append(Case(name, function, promise, deadline_s, frozenset(features), threat))
            return function

        return register

    def chosen(self, only: str | None) -> list[Case]:
        """The cases to run: all, or the one of that name."""
        return [case for case in self.cases if only in (None, case.name)]

    def setup(self, function: Callable[[Rig], None]) -> Callable[[Rig], None]:
        """Register what runs once before the first case; when it fails, every case is an error."""
        self.prepare = function
        return function
