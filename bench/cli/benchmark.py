"""`tableside bench benchmark`: figures of the order server, in ratio to a plain one."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from bench.cli.output import add_json, sayer, write_json
from bench.errors import BenchError
from bench.measure import PASS, Measurement
from bench.report.table import MARKS, figure

SCHEMA = "tableside.benchmark/1"
EXIT_FAIL = 1
T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """What a benchmark found: ``observations`` as they were made, ``figures`` with their limits."""

    benchmark: str
    figures: list[Measurement]
    observations: list[dict[str, object]] = field(default_factory=list)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `benchmark` with its benchmarks."""
    parser = verbs.add_parser(
        "benchmark",
        help="measure the order server: rate, latency, memory, growth, size",
        description="Measures the order server on this machine. Load and server share its cores: rates "
        "are lower bounds, ratios carry over.",
        epilog="example: tableside bench benchmark orders --json orders.json",
    )
    kinds = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    _add_orders(kinds)
    _add_endurance(kinds)


def _leaf(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example: {example}"
    )
    add_json(parser)
    parser.add_argument("--terminals", type=int, choices=range(1, 501), default=16, metavar="N",
                        help="terminals that order, each at its own table (default: 16)")  # fmt: skip
    return parser


def _add_orders(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _leaf(
        kinds, "orders", "orders/s, CPU per order and latency, in turn with a plain FastAPI and ORM server",
        "tableside bench benchmark orders --rounds 3 --json orders.json",
    )  # fmt: skip
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S",
                        help="length of each pattern (default: 5)")  # fmt: skip
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=1, metavar="N",
                        help="how often each server has its turn (default: 1)")  # fmt: skip
    parser.add_argument("--without", action="append", choices=("postgres", "mosquitto"), default=[],
                        help="leave these out; may be given twice")  # fmt: skip
    parser.set_defaults(run=run_orders)


def _add_endurance(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    soak = _leaf(kinds, "soak", "the server's memory over a long run at a steady rate",
                 "tableside bench benchmark soak --budget 10m")  # fmt: skip
    soak.add_argument("--budget", type=_seconds, default=600.0, metavar="T", help="how long (default: 10m)")
    soak.add_argument(
        "--rate", type=float, default=200.0, metavar="R", help="orders per second (default: 200)"
    )
    soak.set_defaults(run=run_soak)
    growth = _leaf(kinds, "growth", "the cost of an order with ever more stored orders",
                   "tableside bench benchmark growth --sizes 10000,100000,1000000")  # fmt: skip
    growth.add_argument("--sizes", type=_sizes, default=(10_000, 100_000, 1_000_000), metavar="N,N,...",
                        help="stored orders to measure at (default: 10000,100000,1000000)")  # fmt: skip
    growth.add_argument("--seconds", type=_seconds, default=5.0, metavar="S",
                        help="length of each measurement (default: 5)")  # fmt: skip
    growth.set_defaults(run=run_growth)
    size = _leaf(kinds, "size", "database bytes that real orders take",
                 "tableside bench benchmark size --orders 20000")  # fmt: skip
    size.add_argument("--orders", type=int, default=20_000, metavar="N",
                      help="at least so many orders (default: 20000)")  # fmt: skip
    size.set_defaults(run=run_size)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) < 2 or not all(1 <= one <= 10_000_000 for one in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not two or more numbers of orders like 10000,100000")
    return found


def _seconds(text: str) -> float:
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        value = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration like 5, 30s, 10m or 2h")
    return value


def run_orders(arguments: argparse.Namespace) -> int:
    """`benchmark orders`."""
    from bench.benchmarks import orders

    plan = orders.OrdersPlan(
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        devices=arguments.terminals,
        postgres="postgres" not in arguments.without,
        mosquitto="mosquitto" not in arguments.without,
    )
    found, gates = _measured(lambda: orders.measure(plan, sayer(arguments.json)))
    return finish(arguments, Report("orders", gates, orders.as_json(found)))


def run_soak(arguments: argparse.Namespace) -> int:
    """`benchmark soak`."""
    from bench.benchmarks import endurance

    if not 0 < arguments.rate <= 10_000:
        raise BenchError("USAGE", f"--rate {arguments.rate:g} is not between 0 and 10000 orders per second.")
    say = sayer(arguments.json)
    found, figures = _measured(
        lambda: endurance.soak(arguments.budget, arguments.rate, arguments.terminals, say)
    )
    return finish(arguments, Report("soak", figures, found))


def run_growth(arguments: argparse.Namespace) -> int:
    """`benchmark growth`."""
    from bench.benchmarks import endurance

    say = sayer(arguments.json)
    found, figures = _measured(
        lambda: endurance.growth(arguments.sizes, arguments.seconds, arguments.terminals, say)
    )
    return finish(arguments, Report("growth", figures, [asdict(one) for one in found]))


def run_size(arguments: argparse.Namespace) -> int:
    """`benchmark size`."""
    from bench.benchmarks import endurance

    if not 1 <= arguments.orders <= 10_000_000:
        raise BenchError("USAGE", f"--orders {arguments.orders} is not between 1 and 10000000.")
    say = sayer(arguments.json)
    found, figures = _measured(lambda: endurance.size(arguments.orders, arguments.terminals, say))
    return finish(arguments, Report("size", figures, found))


def _measured(measure: Callable[[], T]) -> T:
    """Run a benchmark. Raises: BenchError where a server or a connection let it down."""
    from bench.benchmarks.load_client import LinkError

    try:
        return measure()
    except (LinkError, OSError, TimeoutError) as error:
        raise BenchError(
            "BENCHMARK", f"The benchmark could not be finished: {str(error) or 'no answer came'}."
        ) from error


def finish(arguments: argparse.Namespace, report: Report) -> int:
    """Print the figures, write the JSON; 1 when a limit was missed."""
    say = sayer(arguments.json)
    for one in report.figures:
        limit = f"  (limit {one.limit}: {one.outcome})" if one.limit else ""
        note = f"  {one.note}" if one.note else ""
        say(f"{MARKS[one.outcome]} {one.name:52} {figure(one.value):>10} {one.unit}{limit}{note}")
    passed = all(one.outcome == PASS for one in report.figures)
    document = {
        "schema": SCHEMA,
        "benchmark": report.benchmark,
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "outcome": "pass" if passed else "fail",
        "figures": [
            {"name": one.name, "value": round(one.value, 4), "unit": one.unit, "limit": one.limit,
             "outcome": one.outcome, "note": one.note}
            for one in report.figures
        ],
        "observations": report.observations,
    }  # fmt: skip
    write_json(arguments.json, document)
    return 0 if passed else EXIT_FAIL
