"""`tableside sim run` and `sim mutants`: a restaurant on virtual time, and planted bugs that it must find."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench.cli.output import add_json, sayer, write_json
from bench.errors import BenchError
from bench.mutants.campaign import DEFAULT_BUDGET_S, Caught, campaign, control, record
from bench.mutants.campaign import as_json as mutants_json
from bench.mutants.catalogue import MUTANTS

if TYPE_CHECKING:
    from bench.sim.run import SimResult

DAY_S = 86_400.0
EXIT_VIOLATION = 1
CONTROL_S = 10.0  # of looking at the system without any bug


def add_parser(programs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the program `sim`."""
    sim = programs.add_parser(
        "sim",
        help="play a whole restaurant on virtual time, with every fault",
        description="Runs real firmware and the real server in one process on virtual time.",
        epilog="example: tableside sim run --seed 7 --days 0.1",
    )
    verbs = sim.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run",
        help="one seed, one run, every promise checked",
        description="Plays one restaurant from a seed. The same seed gives the same run and the same digest.",
        epilog="example: tableside sim run --seed 7 --days 0.1 --terminals 20 --json sim.json",
    )
    run.add_argument("--seed", type=int, default=1, metavar="N", help="what decides everything (default: 1)")
    run.add_argument("--days", type=_days, default=0.05, metavar="D", help="virtual days (default: 0.05)")
    run.add_argument("--terminals", type=_count, default=20, metavar="K", help="terminals (default: 20)")
    run.add_argument(
        "--order-every",
        type=_days,
        default=20.0,
        metavar="S",
        help="seconds between its orders (default: 20)",
    )
    run.add_argument("--no-faults", action="store_true", help="let nothing go wrong")
    run.add_argument("--trace", metavar="FILE", type=Path, help="write every event, one a line")
    add_json(run)
    run.set_defaults(run=run_simulation)
    mutants = verbs.add_parser(
        "mutants",
        help="plant known bugs and see that each is caught",
        description="Plants one bug after the other into server or firmware and looks what notices it.",
        epilog="example: tableside sim mutants --budget 120",
    )
    mutants.add_argument(
        "--budget", type=_days, default=DEFAULT_BUDGET_S, metavar="T",
        help=f"seconds of computing for all bugs together, on two cores (default: {DEFAULT_BUDGET_S:g})",
    )  # fmt: skip
    mutants.add_argument(
        "--record", action="store_true",
        help="search the shortest run that sees each bug, and keep it for the next time",
    )  # fmt: skip
    mutants.add_argument("--only", metavar="NAMES", help="comma-separated bugs (default: all)")
    add_json(mutants)
    mutants.set_defaults(run=run_mutants)


def _days(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 500:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 500")
    return value


def run_simulation(arguments: argparse.Namespace) -> int:
    """Run one seed, print what came of it; exit 1 when a promise was broken."""
    try:
        from bench.sim.faults import FaultPlan
        from bench.sim.run import SimConfig, simulate
    except ModuleNotFoundError as error:
        raise BenchError(
            "NO_SIMULATION", f"The simulation needs the test dependencies ({error.name} is missing)."
        ) from error
    config = SimConfig(
        seed=arguments.seed,
        duration_s=arguments.days * DAY_S,
        terminals=arguments.terminals,
        order_every_s=arguments.order_every,
        faults=None if arguments.no_faults else FaultPlan(),
    )
    if arguments.trace is None:
        result = simulate(config)
    else:
        with _opened(arguments.trace) as file:
            result = simulate(config, lambda line: print(line, file=file))
    write_json(arguments.json, {**result.as_json(), "replay": _replay(arguments)})
    say = sayer(arguments.json)
    _tell(result, say)
    say(f"replay: {_replay(arguments)}")
    return EXIT_VIOLATION if result.violations else 0


def _replay(arguments: argparse.Namespace) -> str:
    words = ["tableside sim run", f"--seed {arguments.seed}", f"--days {arguments.days:g}",
             f"--terminals {arguments.terminals}"]  # fmt: skip
    if arguments.order_every != 20.0:
        words.append(f"--order-every {arguments.order_every:g}")
    if arguments.no_faults:
        words.append("--no-faults")
    return " ".join(words)


def _tell(result: SimResult, say: Callable[[str], None]) -> None:
    say(f"seed {result.seed}: {result.duration_s / 3600:.2f} h with {result.terminals} terminals in "
          f"{result.real_s:.1f} s, {result.speed:.0f} times as fast as real time")  # fmt: skip
    say("did:    " + ", ".join(f"{count} {name}" for name, count in result.operations.items()))
    say("faults: " + (", ".join(f"{count} {name}" for name, count in result.faults.items()) or "none"))
    say(f"digest: {result.digest}")
    for violation in result.violations:
        print(f"VIOLATION {violation.code}: {violation.text}", file=sys.stderr)
    if not result.violations:
        say("every promise was kept")


def run_mutants(arguments: argparse.Namespace) -> int:
    """Plant every bug, print the table; exit 1 when one survives.

    Raises: BenchError for a bug that is not in the catalogue.
    """
    names = arguments.only.split(",") if arguments.only else [mutant.name for mutant in MUTANTS]
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise BenchError(
            "NO_MUTANT", f"There is no planted bug {unknown[0]!r}; there are: {', '.join(known)}."
        )
    say = sayer(arguments.json)
    results = []
    sound = Caught("none", False, "not looked at", 0.0) if arguments.record else control(CONTROL_S)
    say(_row(sound))
    for caught in campaign([known[name] for name in names], arguments.budget, search=arguments.record):
        results.append(caught)
        say(_row(caught))
    survivors = [result for result in results if not result.caught]
    if sound.caught:
        print("the system is at fault without any planted bug: nothing can be concluded", file=sys.stderr)
        return EXIT_VIOLATION
    if arguments.record:
        record(results)
    write_json(arguments.json, mutants_json(results))
    say(f"{len(results) - len(survivors)} of {len(results)} planted bugs caught")
    return EXIT_VIOLATION if survivors else 0


def _row(result: Caught) -> str:
    mark = "caught  " if result.caught else "clean   " if result.name == "none" else "SURVIVED"
    return f"{mark} {result.name:36} {result.seconds:6.1f} s  {result.by}"


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("w")
    except OSError as error:
        raise BenchError("NO_TRACE", f"Cannot write {path}: {error.strerror}.") from error
