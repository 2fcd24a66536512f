"""`tableside bench shootout`: published libraries through the same harness as ours."""

from __future__ import annotations

import argparse

from bench.cli.output import add_json, sayer, write_json
from bench.cli.times import duration

EXAMPLES = """examples:
  tableside bench shootout ota                             all of them, three minutes
  tableside bench shootout ota --budget 20m                every cut point, on a quiet machine
  tableside bench shootout ota --only senko,tableside --json shootout.json
The libraries are fetched from the package index with pip, into build/shootout, the first time.
exit codes: 0 it was held and ours left no cut point mixed or broken, 1 ours did, 2 usage or set-up"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `shootout` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "shootout",
        help="published MicroPython update libraries through the same power cuts as ours",
        description="Traces one update of each at the flash, cuts the power before and inside every step, "
        "starts what is left on real MicroPython and littlefs, and counts what is whole.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["ota"], help="ota: updates of an application")
    parser.add_argument("--budget", metavar="TIME", type=duration, default=180.0,
                        help="for all of them together: 90s, 3m, 1h (default: 3m)")  # fmt: skip
    parser.add_argument("--only", metavar="NAMES", default="", help="comma-separated participants")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the torn bits (default: 1)")
    add_json(parser)
    parser.set_defaults(run=run_shootout)


def run_shootout(arguments: argparse.Namespace) -> int:
    """Hold it; returns the exit code. Raises: BenchError."""
    from bench.shootout import run  # it brings the campaign with it
    from bench.shootout.play import OURS

    say = sayer(arguments.json)
    names = [name for name in arguments.only.split(",") if name]
    result = run.run(names, arguments.budget, arguments.seed, say)
    say("\n" + run.text(result))
    write_json(arguments.json, result.to_json())
    return int(any(tally.unsafe_percent > 0 for tally, _ in result.tallies if tally.name == OURS))
