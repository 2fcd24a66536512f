"""`tableside bench campaign`: interrupt an update everywhere, judge what is left."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import images
from bench.campaign import lines, plan, run, wear, world
from bench.campaign.player import Player
from bench.campaign.run import Tally
from bench.cli.times import duration
from bench.errors import BenchError
from bench.mutants import ota

EXAMPLES = """examples:
  tableside bench campaign                           every state, on two cores
  tableside bench campaign --budget 3m --seed 7      as far as three minutes go
  tableside bench campaign --replay "new cut=137:keep=9 cut=12"
  tableside bench campaign --export "new cut=137" broken.img
  tableside bench campaign --board qemu --kills 200  power cuts on the emulated board
  tableside bench campaign --mutants --json mutants.json
exit codes: 0 nothing failed (or every planted bug was caught), 1 something did, 2 usage, set-up or error"""
SECONDS_PER_STATE = 6


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `campaign` to the verbs of `bench`."""
    parser = verbs.add_parser(
        "campaign",
        help="cut the power everywhere in an update",
        description="Traces an update at the flash, interrupts it everywhere, boots and judges every state.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", metavar="TIME", type=duration, help="stop after this long: 90s, 3m, 1h")
    parser.add_argument("--seed", type=int, help="seed of the tears and of the order (default: a fresh one)")
    parser.add_argument("--board", choices=["process", "qemu"], default="process")
    parser.add_argument("--workers", type=int, default=2, help="processes that play (default: 2)")
    parser.add_argument(
        "--second", metavar="N", type=int, default=SECONDS_PER_STATE, help="second cuts for every first one"
    )
    parser.add_argument("--kills", metavar="N", type=int, default=200, help="qemu: power cuts (default: 200)")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON (- for stdout)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mutants", action="store_true", help="plant bugs and see that each is caught")
    what.add_argument("--replay", metavar="LINE", help="play one state and show what the terminal said")
    what.add_argument("--export", metavar=("LINE", "FILE"), nargs=2, help="write a state's flash image")
    parser.set_defaults(run=run_campaign)


def run_campaign(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code. Raises: BenchError."""
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    if arguments.mutants:
        return _mutants(arguments, seed)
    if arguments.board == "qemu":
        return _on_qemu(arguments, seed)
    wanted = arguments.replay or (arguments.export[0] if arguments.export else None)
    line = lines.parse(wanted) if wanted is not None else None
    place = world.build(_image(), world.SEED)
    if line is not None:
        return _export(place, line, arguments.export[1]) if arguments.export else _replay(place, line)
    say = _say(arguments)
    tasks = plan.tasks(place, seed, arguments.second)
    golden = place.goldens["new"].trace
    say(
        f"seed {seed}; one update is {len(golden.steps)} flash steps, {golden.erases} erases; "
        f"{len(tasks)} first states"
    )
    tally = run.campaign(place, seed, tasks, arguments.workers, arguments.budget, _progress(arguments))
    result = tally.to_json() | {"wear": wear.figures(place).to_json()}
    say("")
    for text in summary(result):
        say(text)
    _write(arguments.json, result)
    return 1 if tally.failed else 0


def _image() -> Path:
    try:
        return images.build("process", progress=lambda text: print(text, file=sys.stderr)).path
    except images.ImageError as error:
        raise BenchError(error.code.upper().replace("-", "_"), str(error)) from error


def summary(result: Mapping[str, Any]) -> list[str]:
    """A result in words."""
    found = [
        f"{result['states']} states: {result['cuts']} cuts ({result['torn']} torn, "
        f"{result['second_cuts']} second cuts), {result['out_of_order']} out of order, "
        f"{result['bit_rot']} with a rotten bit,",
        f"{result['link_cuts']} link faults, {result['content_faults']} content faults, "
        f"{result['plug_pulls']} plug pulls; {result['boots']} boots, {result['states_per_s']} states/s, "
        f"{result['failures']} failures",
    ]
    for one in result["failed"][:10]:
        found.append(f"failed: {one['line']}")
        found += [f"    {text}" for text in one["oracles"][:4]]
    found += wear.in_words(result["wear"])
    if not result["complete"]:
        found.append("the budget ended before the list did")
    return found


def _replay(place: world.World, line: lines.Line) -> int:
    with Player(place) as player:
        outcome = player.play(line)
    for life in outcome.consoles:
        print(f"--- power or reset ---\n{life}")
    for failure in outcome.failures:
        print(f"{failure.oracle}: {failure.text}")
    print(f"{line}: {outcome.lives} starts, {len(outcome.failures)} failures, flash {outcome.hash:032x}")
    return 1 if outcome.failures else 0


def _export(place: world.World, line: lines.Line, file: str) -> int:
    with Player(place) as player:
        state = player.prepare(line)[0]
    try:
        Path(file).write_bytes(state.data)
    except OSError as error:
        raise BenchError("NOT_WRITTEN", f"Cannot write {file}: {error.strerror}.") from error
    print(f"{file}: {len(state.data)} bytes, flash {state.hash:032x}")
    return 0


def _mutants(arguments: argparse.Namespace, seed: int) -> int:
    say = _say(arguments)
    found = ota.hunt(seed, arguments.budget, say)
    survivors = [one for one in found["mutants"] if not one["caught"]]
    say(f"{len(found['mutants']) - len(survivors)} of {len(found['mutants'])} planted bugs caught")
    _write(arguments.json, found)
    return 1 if survivors else 0


def _on_qemu(arguments: argparse.Namespace, seed: int) -> int:
    from bench.campaign import kills  # needs the whole rig

    say = _say(arguments)
    result = kills.campaign(seed, arguments.kills, arguments.budget, say)
    say(
        f"{result['cuts']} power cuts on the QEMU board, {result['failures']} failures, "
        f"{result['states_per_s']} states/s"
    )
    _write(arguments.json, result)
    return 1 if result["failures"] else 0


def _say(arguments: argparse.Namespace) -> Any:
    stream = sys.stderr if arguments.json == "-" else sys.stdout

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    return say


def _progress(arguments: argparse.Namespace) -> Any:
    stream = sys.stderr if arguments.json == "-" else sys.stdout
    shown = [0.0, 0]

    def progress(tally: Tally) -> None:
        for played in tally.failed[int(shown[1]) :]:
            print(f"failed: {played.line}", file=stream, flush=True)
        shown[1] = len(tally.failed)
        if tally.seconds - shown[0] >= 10 and tally.seconds:
            shown[0] = tally.seconds
            states = tally.counts["states"]
            print(
                f"{tally.seconds:6.0f} s  {states} states, {states / tally.seconds:.0f}/s, "
                f"{len(tally.failed)} failures",
                file=stream,
                flush=True,
            )

    return progress


def _write(file: str | None, result: Mapping[str, Any]) -> None:
    if file is None:
        return
    text = json.dumps(result, indent=1) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise BenchError("NOT_WRITTEN", f"Cannot write {file}: {error.strerror}.") from error
