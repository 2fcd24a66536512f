"""`tableside bench mixed`: several servers on one PostgreSQL database, everything at once."""

from __future__ import annotations

import argparse
import random

from bench.cli.output import add_json, sayer, write_json
from bench.cli.times import duration
from bench.errors import BenchError

EXAMPLES = """examples:
  tableside bench mixed                           a minute with three servers
  tableside bench mixed --budget 10m --json mixed.json
  tableside bench mixed --orders-only --servers 6
exit codes: 0 no deadlock and the books balance, 1 otherwise, 2 usage or set-up"""
SERVERS_MAX = 12


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `mixed` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "mixed",
        help="load one PostgreSQL database from several servers",
        description="Starts a private PostgreSQL and lets several servers' writers work on it at once: "
        "orders, changes, staff, menus. Counts PostgreSQL's deadlocks, then replays the history through the "
        "plain model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", metavar="TIME", type=duration, default=60.0,
                        help="how long: 90s, 3m, 1h (default: 60s)")  # fmt: skip
    parser.add_argument("--servers", metavar="N", type=int, default=3,
                        help=f"servers at work, 1 to {SERVERS_MAX} (default: 3)")  # fmt: skip
    parser.add_argument("--seed", type=int, help="seed of what people want (default: a fresh one)")
    parser.add_argument("--orders-only", action="store_true",
                        help="nothing that has the house to itself: orders meet often")  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=run_mixed)


def run_mixed(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code. Raises: BenchError."""
    if not 1 <= arguments.servers <= SERVERS_MAX:
        raise BenchError("USAGE", f"--servers {arguments.servers} is not between 1 and {SERVERS_MAX}.")
    from bench import mixed  # it brings the whole server with it

    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    say = sayer(arguments.json)
    say(f"seed {seed}, {arguments.servers} servers, {arguments.budget:g} s")
    result = mixed.run(arguments.budget, arguments.servers, seed, say, orders_only=arguments.orders_only)
    write_json(arguments.json, result.to_json())
    per_second = result.ops / result.seconds if result.seconds else 0.0
    say(
        f"{result.ops} ops ({per_second:.0f}/s), {result.sent_twice} of them to two servers at once, "
        f"{result.staff} changes by staff, {result.menus} menus, {result.batches} commits"
    )
    say(
        f"{result.deadlocks} deadlocks, {sum(result.failures.values())} failures, {len(result.violations)} "
        f"broken promises"
    )
    for text in [*result.failures, *result.violations][:10]:
        say(f"  {text}")
    return 0 if result.good else 1
