"""Progress while suites run: one plain line a case for logs, a live line above it for people."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

from bench.measure import PASS, Measurement
from bench.report.table import MARKS, STYLES, figure
from bench.results import CaseResult
from bench.suites.runner import Progress


class PlainProgress(Progress):
    """Lines without colour or motion, for pipes and CI logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        self._line(f"{suite}: {cases} cases - {about}")

    def case_begins(self, suite: str, case: str) -> None:
        return

    def case_ends(self, suite: str, result: CaseResult) -> None:
        detail = f" - {result.detail}" if result.detail else ""
        self._line(f"  {result.outcome:5} {suite}.{result.name} ({result.seconds:.1f} s){detail}")

    def measured(self, suite: str, figure_: Measurement) -> None:
        limit = f" (limit {figure_.limit})" if figure_.limit else ""
        mark = "" if figure_.outcome == PASS else f" {figure_.outcome}"
        self._line(f"        {suite}: {figure_.name} = {figure(figure_.value)} {figure_.unit}{limit}{mark}")

    def suite_ends(self, suite: str, seconds: float) -> None:
        return


class LiveProgress(PlainProgress):
    """The same lines in colour, with a spinner naming the case that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._status: Status | None = None
        self._running: dict[str, str] = {}  # suite -> case

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def case_begins(self, suite: str, case: str) -> None:
        self._running[suite] = case
        self._show()

    def case_ends(self, suite: str, result: CaseResult) -> None:
        detail = f" [dim]{_escape(result.detail)}[/]" if result.detail else ""
        mark = f"[{STYLES[result.outcome]}]{MARKS[result.outcome]}[/]"
        self._line(f"  {mark} {suite} {result.name} [dim]{result.seconds:.1f} s[/]{detail}")

    def measured(self, suite: str, figure_: Measurement) -> None:
        limit = f" [dim]limit {figure_.limit}[/]" if figure_.limit else ""
        value = f"[{STYLES[figure_.outcome]}]{figure(figure_.value)}[/]"
        self._line(f"      {suite}: {figure_.name} {value} {figure_.unit}{limit}")

    def suite_ends(self, suite: str, seconds: float) -> None:
        self._running.pop(suite, None)
        self._show()

    def _show(self) -> None:
        text = " · ".join(f"{suite}: {case}" for suite, case in self._running.items())
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def pause(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def progress_for(console: Console) -> PlainProgress:
    """Live when a person watches, plain otherwise."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
