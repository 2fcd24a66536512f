"""Progress while suites run: one plain line a case for logs, a live line above it for people."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

from bench.measure import PASS, Measurement
from bench.report.table import MARKS, STYLES, figure
from bench.results import CaseResult
from bench.suites.registry import Case, Suite
from bench.suites.runner import Progress


class PlainProgress(Progress):
    """Lines without colour or motion, for pipes and CI logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def suite_begins(self, suite: Suite, cases: int) -> None:
        self._line(f"{suite.name}: {cases} cases - {suite.about}")

    def case_begins(self, suite: Suite, case: Case) -> None:
        return

    def case_ends(self, suite: Suite, result: CaseResult) -> None:
        detail = f" - {result.detail}" if result.detail else ""
        self._line(f"  {result.outcome:5} {suite.name}.{result.name} ({result.seconds:.1f} s){detail}")

    def measured(self, suite: Suite, figure_: Measurement) -> None:
        limit = f" (limit {figure_.limit})" if figure_.limit else ""
        mark = "" if figure_.outcome == PASS else f" {figure_.outcome}"
        self._line(f"        {figure_.name} = {figure(figure_.value)} {figure_.unit}{limit}{mark}")


class LiveProgress(PlainProgress):
    """The same lines in colour, with a spinner naming the case that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._status: Status | None = None

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def case_begins(self, suite: Suite, case: Case) -> None:
        self.pause()
        self._status = self._console.status(f"{suite.name}: {case.name}")
        self._status.start()

    def case_ends(self, suite: Suite, result: CaseResult) -> None:
        self.pause()
        detail = f" [dim]{_escape(result.detail)}[/]" if result.detail else ""
        style = STYLES[result.outcome]
        self._line(
            f"  [{style}]{MARKS[result.outcome]}[/] {result.name} [dim]{result.seconds:.1f} s[/]{detail}"
        )

    def measured(self, suite: Suite, figure_: Measurement) -> None:
        limit = f" [dim]limit {figure_.limit}[/]" if figure_.limit else ""
        value = f"[{STYLES[figure_.outcome]}]{figure(figure_.value)}[/]"
        self._line(f"      {figure_.name} {value} {figure_.unit}{limit}")

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
