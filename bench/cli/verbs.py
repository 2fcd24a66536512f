"""`tableside bench`: its commands, each from a module of its own."""

from __future__ import annotations

import argparse

from bench.cli import benchmark, campaign, kill, mixed, run, shell, shootout, show


def add_parser(programs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the program `bench`."""
    bench = programs.add_parser(
        "bench",
        help="drive terminals, measure and judge",
        description="Drives power, console, link and flash of terminals, then measures and judges.",
        epilog="example: tableside bench run --suite boot",
    )
    verbs = bench.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run.add_parser(verbs)
    show.add_parsers(verbs)
    shell.add_parser(verbs)
    campaign.add_parser(verbs)
    benchmark.add_parser(verbs)
    kill.add_parser(verbs)
    mixed.add_parser(verbs)
    shootout.add_parser(verbs)
