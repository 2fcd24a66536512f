"""`tableside bench run`: everything from an image to a verdict."""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from bench import suites
from bench.boards.catalogue import KINDS, BoardRequest, firmware_for
from bench.cli.progress import LiveProgress, PlainProgress, progress_for
from bench.errors import BenchError
from bench.measure import PASS, SKIP
from bench.paths import ROOT
from bench.report import html, junit, table
from bench.results import EXIT_CODES, BoardInfo, RunResult, to_json
from bench.rig import RigOptions, make_run_dir
from bench.suites.lanes import run_in_lanes
from bench.suites.registry import Suite
from bench.suites.runner import Recorder

REPLAY_LINES = 10
EXAMPLES = """examples:
  tableside bench run                                   everything, on the QEMU board
  tableside bench run --board process --suite boot,signing
  tableside bench run --suite attacks                   updates from a malicious server
  tableside bench run --case a_flipped_bit_is_refused --seed 7
  tableside bench run --json result.json --html report.html --junit junit.xml
exit codes: 0 every case passed, 1 something failed, 2 usage, set-up or error"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "run",
        help="boot a terminal against a real server and judge both",
        description="Starts the order server, provisions and boots the firmware, runs the suites, judges.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_board_options(parser)
    parser.add_argument(
        "--suite",
        metavar="NAMES",
        help=f"comma-separated: {','.join(suites.NAMES)} (default: all but {','.join(suites.ON_REQUEST)})",
    )
    parser.add_argument("--case", metavar="NAME", help="only this case")
    parser.add_argument(
        "--broker",
        choices=("embedded", "mosquitto"),
        default="embedded",
        help="what terminals connect to: the server's own broker, or a private mosquitto beside it",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of everything random in the run (default: a fresh one, printed)"
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        choices=range(1, 17),
        default=min(os.cpu_count() or 1, 4),
        help="suites at once, each with its own server and board (default: a core each, at most 4; a real "
        "board is one); suites that take times run alone",
    )
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="write the result as JSON (- or nothing: stdout)"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a report as one HTML file")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a report as JUnit XML")
    parser.set_defaults(run=run)


def add_board_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a board."""
    parser.add_argument("--board", default="qemu", choices=list(KINDS), help="kind of board (default: qemu)")
    parser.add_argument(
        "--port", metavar="URL", help="serial port of a real board: /dev/ttyUSB0, socket://, rfc2217://"
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="this machine as a real board sees it"
    )
    parser.add_argument(
        "--icount",
        metavar="SHIFT",
        type=int,
        choices=range(11),
        help="qemu: exact virtual time, 2^SHIFT ns an instruction",
    )


def board_request(arguments: argparse.Namespace) -> BoardRequest:
    """What those options asked for."""
    return BoardRequest(arguments.board, arguments.port, arguments.host, arguments.icount)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code.

    Raises: BenchError.
    """
    chosen = _chosen_suites(arguments)
    for file in (
        arguments.html,
        arguments.junit,
        None if arguments.json in (None, "-") else Path(arguments.json),
    ):
        if file is not None and not file.absolute().parent.is_dir():
            raise BenchError(
                "NO_FOLDER", f"There is no folder {file.absolute().parent} to write {file.name} into."
            )
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    console = Console(stderr=arguments.json == "-")
    progress = progress_for(console)
    folder = make_run_dir(seed)
    result = RunResult(seed, BoardInfo(arguments.board, commit=_commit()))
    try:
        _run_suites(arguments, chosen, result, folder, console, progress)
    finally:
        if isinstance(progress, LiveProgress):
            progress.pause()
        if result.cases:
            _write_reports(result, arguments, folder)
    table.write(result, console)
    _point_at_evidence(result, arguments, folder, console)
    return EXIT_CODES[result.outcome]


def _run_suites(
    arguments: argparse.Namespace,
    chosen: list[Suite],
    result: RunResult,
    folder: Path,
    console: Console,
    progress: PlainProgress,
) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    request = board_request(arguments)
    firmware = firmware_for(request.kind, say)  # built here, once, before lanes ask for it
    if firmware is not None:
        result.board.firmware, result.board.micropython = firmware.digest, firmware.micropython
    jobs = 1 if arguments.port else arguments.jobs
    say(f"board {request.kind}, firmware {result.board.firmware or 'its own'}, seed {result.seed}")
    try:
        run_in_lanes(
            chosen,
            RigOptions(request, result.seed, mosquitto=arguments.broker == "mosquitto"),
            folder,
            Recorder(result, progress),
            only=arguments.case,
            jobs=jobs,
            say=say,
        )
    finally:
        result.suites.sort(key=lambda suite: suites.NAMES.index(suite.name))


def _chosen_suites(arguments: argparse.Namespace) -> list[Suite]:
    if arguments.suite:
        chosen = suites.load_all(arguments.suite.split(","))
    else:
        chosen = suites.load_all() if arguments.case else suites.load_default()
    if arguments.case is not None and not any(c.name == arguments.case for s in chosen for c in s.cases):
        raise BenchError("NO_SUCH_CASE", f"No case is called {arguments.case!r}: see tableside bench list.")
    return chosen


def _write_reports(result: RunResult, arguments: argparse.Namespace, folder: Path) -> None:
    text = json.dumps(to_json(result), indent=1) + "\n"
    (folder / "result.json").write_text(text)
    page = html.render(result, str(folder))
    (folder / "report.html").write_text(page)
    if arguments.html is not None:
        arguments.html.write_text(page)
    if arguments.junit is not None:
        arguments.junit.write_text(junit.render(result))
    if arguments.json == "-":
        sys.stdout.write(text)
    elif arguments.json is not None:
        Path(arguments.json).write_text(text)


def _point_at_evidence(
    result: RunResult, arguments: argparse.Namespace, folder: Path, console: Console
) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    failed = [(s.name, c.name) for s in result.suites for c in s.cases if c.outcome not in (PASS, SKIP)]
    for suite, case in failed[:REPLAY_LINES]:
        say(f"replay: {replay_line(arguments, suite, case, result.seed)}")
    if len(failed) > REPLAY_LINES:
        say(f"        and {len(failed) - REPLAY_LINES} more, named in {folder / 'result.json'}")
    say(f"artefacts: {folder}")


def replay_line(arguments: argparse.Namespace, suite: str, case: str, seed: int) -> str:
    """The one line that runs a failed case again."""
    words = ["tableside", "bench", "run", "--board", arguments.board]
    if arguments.port:
        words += ["--port", arguments.port]
    if arguments.icount is not None:
        words += ["--icount", str(arguments.icount)]
    if arguments.broker != "embedded":
        words += ["--broker", arguments.broker]
    return shlex.join([*words, "--suite", suite, "--case", case, "--seed", str(seed)])


def _commit() -> str:
    """The commit of the sources, with + when they are changed; empty outside a git checkout."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
