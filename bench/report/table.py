"""The table at the end of a run, for people at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.measure import ERROR, FAIL, PASS, SKIP, Measurement
from bench.results import RunResult

STYLES = {PASS: "green", FAIL: "bold red", ERROR: "bold magenta", SKIP: "yellow"}
MARKS = {PASS: "✓", FAIL: "✗", ERROR: "!", SKIP: "-"}


def figure(value: float) -> str:
    """A value with as many digits as it deserves: 4 significant ones, thousands separated."""
    if value == int(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.4g}"


def spread(measurement: Measurement) -> str:
    """Smallest to largest observation, or nothing when there was one."""
    if measurement.samples < 2:
        return ""
    low, high = measurement.spread
    return f"{figure(low)}-{figure(high)} ({measurement.samples})"


def write(run: RunResult, console: Console) -> None:
    """Print suites, figures and, last, what failed."""
    suites = Table(title="Suites", title_justify="left", title_style="bold")
    for heading, side in (("suite", "left"), ("outcome", "left"), ("cases", "right"), ("seconds", "right")):
        suites.add_column(heading, justify="right" if side == "right" else "left")
    for suite in run.suites:
        passed = sum(case.outcome == PASS for case in suite.cases)
        suites.add_row(
            suite.name,
            f"[{STYLES[suite.outcome]}]{suite.outcome}[/]",
            f"{passed}/{len(suite.cases)}",
            f"{suite.seconds:.1f}",
        )
    console.print(suites)
    _write_figures(run, console)
    for suite in run.suites:
        for case in suite.cases:
            if case.outcome != PASS:
                style = STYLES[case.outcome]
                console.print(f"[{style}]{MARKS[case.outcome]} {suite.name} {case.name}[/]", highlight=False)
                console.print(f"    {case.detail}", markup=False, highlight=False)
    console.print(f"[{STYLES[run.outcome]}]{run.outcome}[/]  {_counts(run)}", highlight=False)


def _write_figures(run: RunResult, console: Console) -> None:
    rows = [(suite.name, m) for suite in run.suites for m in suite.measurements]
    if not rows:
        return
    table = Table(title="Figures", title_justify="left", title_style="bold")
    for heading in ("suite", "name", "value", "unit", "limit", "spread (samples)"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for name, m in rows:
        table.add_row(
            name, m.name, f"[{STYLES[m.outcome]}]{figure(m.value)}[/]", m.unit, m.limit or "", spread(m)
        )
    console.print(table)


def _counts(run: RunResult) -> str:
    total = len(run.cases)
    parts = [f"{total} cases"]
    for outcome in (FAIL, ERROR, SKIP):
        count = sum(case.outcome == outcome for case in run.cases)
        if count:
            parts.append(f"{count} {outcome}")
    figures = [m for suite in run.suites for m in suite.measurements]
    outside = sum(m.outcome == FAIL for m in figures)
    parts.append(f"{len(figures)} figures" + (f", {outside} outside the limit" if outside else ""))
    return ", ".join(parts)
