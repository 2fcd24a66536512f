"""`tableside bench list`, `boards` and `report`: what there is, and what came of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from bench import suites
from bench.boards.catalogue import KINDS
from bench.errors import BenchError
from bench.report import html, junit, table
from bench.results import EXIT_CODES, RunResult, from_json


def add_parsers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs that only look."""
    listing = verbs.add_parser(
        "list",
        help="the suites and their cases",
        description="Lists every case with its promise.",
        epilog="example: tableside bench list --suite signing",
    )
    listing.add_argument("--suite", metavar="NAMES", help="comma-separated suites (default: all)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=list_cases)
    boards = verbs.add_parser(
        "boards",
        help="the kinds of boards and what they need",
        description="Lists the kinds of boards, what each can do and what it still needs on this machine.",
        epilog="example: tableside bench boards",
    )
    boards.add_argument("--json", action="store_true", help="as JSON")
    boards.set_defaults(run=list_boards)
    report = verbs.add_parser(
        "report",
        help="show a result file again, or turn it into HTML or JUnit",
        description="Reads a result written by `bench run --json`.",
        epilog="example: tableside bench report build/runs/LAST/result.json --html report.html",
    )
    report.add_argument("result", type=Path, help="a result file (JSON)")
    report.add_argument("--html", metavar="FILE", type=Path, help="write one HTML file")
    report.add_argument("--junit", metavar="FILE", type=Path, help="write JUnit XML")
    report.set_defaults(run=show_report)


def list_cases(arguments: argparse.Namespace) -> int:
    """Print the cases."""
    chosen = suites.load_all(arguments.suite.split(",") if arguments.suite else None)
    if arguments.json:
        rows = [
            {"suite": s.name, "case": c.name, "promise": c.promise, "threat": c.threat}
            for s in chosen
            for c in s.cases
        ]
        print(json.dumps(rows, indent=1))
        return 0
    for suite in chosen:
        print(f"{suite.name} - {suite.about}")
        for case in suite.cases:
            print(f"  {case.name}\n      {case.promise}")
    print(f"{sum(len(s.cases) for s in chosen)} cases. Run one: tableside bench run --case NAME")
    return 0


def list_boards(arguments: argparse.Namespace) -> int:
    """Print the kinds of boards."""
    if arguments.json:
        rows = [
            {
                "board": k.name,
                "what": k.what,
                "for": k.purpose,
                "features": sorted(k.features),
                "needs": k.needs(),
            }
            for k in KINDS.values()
        ]
        print(json.dumps(rows, indent=1))
        return 0
    for kind in KINDS.values():
        print(f"{kind.name} - {kind.what}")
        print(f"    for    {kind.purpose}")
        print(f"    can    {', '.join(sorted(kind.features)) or 'be reset and spoken to'}")
        print(f"    needs  {'; '.join(kind.needs()) or 'nothing more on this machine'}")
    print("Choose one: tableside bench run --board NAME")
    return 0


def show_report(arguments: argparse.Namespace) -> int:
    """Print or convert a result file; exits like the run did.

    Raises: BenchError when the file is missing or no result.
    """
    run = _read(arguments.result)
    if arguments.html is not None:
        arguments.html.write_text(html.render(run))
    if arguments.junit is not None:
        arguments.junit.write_text(junit.render(run))
    if arguments.html is None and arguments.junit is None:
        table.write(run, Console())
    return EXIT_CODES[run.outcome]


def _read(path: Path) -> RunResult:
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise BenchError(
            "NO_RESULT", f"Cannot read {path}: {error.strerror}. Runs keep theirs in build/runs/."
        ) from error
    except ValueError as error:
        raise BenchError("BAD_RESULT", f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise BenchError("BAD_RESULT", f"{path} is not a bench result.")
    return from_json(data)
