"""`tableside bench kill`: kill -9 real processes at every commit boundary and at random, then judge."""

from __future__ import annotations

import argparse
import random
import shutil
import sys

from bench.cli.output import add_json, sayer, write_json
from bench.cli.times import duration
from bench.errors import BenchError
from bench.kill.words import POINTS

EXAMPLES = """examples:
  tableside bench kill --kills 30
  tableside bench kill --kills 1000 --budget 1h --json kill.json
  tableside bench kill --kills 20 --plant reply_before_commit
exit codes: 0 every promise was kept, 1 one was broken, 2 usage, set-up or error"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `kill` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "kill",
        help="kill -9 server and terminals at every commit boundary",
        description="Real terminals order and staff work while server and terminals are killed; afterwards "
        "everything anybody was told is looked for in the database.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=_count, default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument("--budget", type=duration, metavar="TIME", help="stop after this long: 90s, 3m, 1h")
    parser.add_argument("--seed", type=int, metavar="S", help="what is drawn (default: a fresh one)")
    parser.add_argument(
        "--boards", type=_count, default=3, metavar="K", help="terminals, 1 to 8 (default: 3)"
    )
    parser.add_argument(
        "--database", choices=["sqlite", "postgresql"], default="sqlite",
        help="postgresql: a private one, killed as well (default: sqlite)",
    )  # fmt: skip
    parser.add_argument(
        "--broker", choices=["amqtt", "mosquitto"], default="amqtt",
        help="mosquitto: a private one beside the server, killed as well (default: the server's own)",
    )  # fmt: skip
    parser.add_argument(
        "--plant", action="append", default=[], metavar="BUG",
        help="give the server a bug of `tableside sim mutants`, to see it caught",
    )  # fmt: skip
    parser.add_argument(
        "--at", action="append", choices=sorted(POINTS), metavar="POINT",
        help=f"kill the server at this boundary only, beside random moments: {', '.join(POINTS)}",
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=run_kill)


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000000")
    return value


def run_kill(arguments: argparse.Namespace) -> int:
    """Run the campaign; returns the exit code. Raises: BenchError."""
    from bench.kill.campaign import Campaign, Plan, points_in_words
    from bench.mutants.catalogue import MUTANTS
    from bench.rig import make_run_dir

    unknown = sorted(set(arguments.plant) - {mutant.name for mutant in MUTANTS})
    if unknown:
        raise BenchError("NO_MUTANT", f"There is no planted bug {unknown[0]!r}: see tableside sim mutants.")
    if arguments.boards > 8:
        raise BenchError("NO_DEVICE_KEY", "There are keys for 8 terminals: choose --boards 8 or fewer.")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    plan = Plan(
        arguments.kills, seed, arguments.budget, arguments.boards, arguments.database, arguments.broker,
        tuple(arguments.plant), tuple(arguments.at or POINTS),
    )  # fmt: skip
    say = sayer(arguments.json)
    folder = make_run_dir(seed)
    with Campaign(plan, folder, say) as campaign:
        verdict = campaign.run()
    for line in points_in_words(verdict.killed):
        say(line)
    result = verdict.as_json()
    for violation in verdict.violations[:20]:
        print(f"VIOLATION {violation.code}: {violation.text}", file=sys.stderr)
    say(
        f"{verdict.kills} kills in {verdict.seconds:.0f} s ({verdict.seconds / max(verdict.kills, 1):.2f} s "
        f"each), {verdict.orders} orders, {verdict.confirmed} confirmed; lost {result['lost']}, doubled "
        f"{result['doubled']}, oversold {result['oversold']}, double-booked {result['double_booked']}, cents "
        f"wrong {result['cents_wrong']}"
    )
    say(f"replay: {plan.replay}")
    if verdict.violations:
        say(f"database, flash and logs: {folder}")
    else:
        shutil.rmtree(folder)
    write_json(arguments.json, result)
    return 1 if verdict.violations else 0
