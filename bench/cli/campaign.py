"""`tableside bench campaign`: interrupt an update everywhere, judge what is left."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import images
from bench.campaign import lines, plan, run, wear, wire, wire_cases, world
from bench.campaign.player import Player
from bench.campaign.run import Tally
from bench.cli import campaign_image, campaign_lines
from bench.cli.campaign_lines import WIRE, count, must_have_played
from bench.cli.output import add_json, place, sayer, write_json
from bench.cli.times import duration
from bench.errors import BenchError
from bench.mutants import ota

EXAMPLES = """examples:
  tableside bench campaign                           every state, on two cores
  tableside bench campaign --budget 3m --seed 7      as far as three minutes go
  tableside bench campaign --only wire               link cuts and server kills over real MQTT alone
  tableside bench campaign --replay "new cut=137:keep=9 cut=12"
  tableside bench campaign --replay "wire link=12:after"
  tableside bench campaign --export "new cut=137" broken.img
  tableside bench campaign --board qemu --kills 200  power cuts on the emulated board
  tableside bench campaign --mutants --json mutants.json
  tableside bench campaign --layer image             firmware images instead of applications
  tableside bench campaign --layer image --replay "new cut=137:keep=9 cut=12"
  tableside bench campaign --layer image --export "first-norollback cut=40" chip.img
  tableside bench campaign --layer image --mutants   bugs in the update of images, see each one caught
  tableside bench campaign --wear                    what one update costs in flash and on the wire
lines: what is updated, and what happens to it in turn; `tableside bench campaign` prints those that failed.
  application: new (a good release), bad (one that does not start); long (many small chunks), lower-floor,
               liar (its code gives another version), worse (a second bad one, after bad), flashed and
               flashed-alike (what runs was made over another image)
               cut=N[:keep=B][:seed=S]  lose=N:seed=S  rot=BIT  link=N[:after]  twice=N  content=NAME
               unplug=N  hang=1  brownout=N  alone=N  unfit=1  crash=1  restart=N  late=S  cancel=N
               or: wire link=N[:after], wire kill=N[:after]
  image:       new, bad, first (a chip flashed by cable takes its first image), each also with -norollback
               (a bootloader built without it)
               cut=N[:keep=B][:seed=S]  rot=BIT  chip=deaf-set-boot, deaf-mark-valid, weak-page or sick
exit codes: 0 nothing failed (or every planted bug was caught), 1 something did, 2 usage, set-up or error"""
SECONDS_PER_STATE = 10
_FLASH_SHARE = 0.6  # of a budget; the rest is for faults over real MQTT
_SAY_EVERY_S = 10.0
Say = Callable[[str], None]


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
    parser.add_argument("--workers", type=count, default=2, help="processes that play (default: 2)")
    parser.add_argument(
        "--second", metavar="N", type=int, default=SECONDS_PER_STATE, help="second cuts for every first one"
    )
    parser.add_argument(
        "--kills", metavar="N", type=count, default=200, help="qemu: power cuts (default: 200)"
    )
    parser.add_argument(
        "--layer",
        choices=["application", "image"],
        default="application",
        help="what is updated: bundles in slots, or whole firmware images in a chip's two partitions",
    )
    parser.add_argument(
        "--micropython",
        type=Path,
        metavar="IMAGE",
        help="layer image: a published ESP32-C3 image (slow)",
    )
    parser.add_argument("--only", choices=["flash", "wire"], help="leave the other half out")
    add_json(parser)
    parser.add_argument(
        "--details",
        metavar="FILE",
        type=place,
        help="write what else is known: lines that failed, computing time, boots",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mutants", action="store_true", help="plant bugs and see that each is caught")
    what.add_argument("--replay", metavar="LINE", help="play one state and show what the terminal said")
    what.add_argument("--wear", action="store_true", help="print what one update costs")
    what.add_argument("--export", metavar=("LINE", "FILE"), nargs=2, help="write a state's flash image")
    parser.set_defaults(run=run_campaign)


def run_campaign(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code. Raises: BenchError."""
    if arguments.layer == "image":
        return campaign_image.run(arguments)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    if arguments.mutants:
        return _mutants(arguments, seed)
    if arguments.board == "qemu":
        return _on_qemu(arguments, seed)
    if arguments.replay is not None and arguments.replay.split()[:1] == [WIRE]:
        return _replay_wire(campaign_lines.of_wire(arguments.replay))
    wanted = arguments.export[0] if arguments.export else arguments.replay
    line = campaign_lines.of_application(wanted) if wanted is not None else None
    place = world.build(_image(), world.SEED)
    if line is not None:
        campaign_lines.judge_contents(line, place)
        return _export(place, line, arguments.export[1]) if arguments.export else _replay(place, line)
    return _wear(arguments, place) if arguments.wear else _play(arguments, place, seed)


def _image() -> Path:
    try:
        return images.build("process", progress=lambda text: print(text, file=sys.stderr)).path
    except images.ImageError as error:
        raise BenchError(error.code.upper().replace("-", "_"), str(error)) from error


def _play(arguments: argparse.Namespace, place: world.World, seed: int) -> int:
    """The campaign: flash states first, then faults of real links and a real server."""
    say = sayer(arguments.json)
    start = time.monotonic()
    tasks = plan.tasks(place, seed, arguments.second) if arguments.only != "wire" else []
    golden = place.goldens["new"].trace
    say(
        f"seed {seed}; one update is {len(golden.steps)} flash steps, {golden.erases} erases; "
        f"{len(tasks)} first states"
    )
    share = arguments.budget
    if share is not None and arguments.only is None:
        share *= _FLASH_SHARE
    tally = run.campaign(place, seed, tasks, arguments.workers, share, _progress(arguments))
    if arguments.only != "flash":
        deadline = None if arguments.budget is None else start + arguments.budget
        with tempfile.TemporaryDirectory(prefix="tableside-wire-") as folder:
            _play_wire(tally, Path(folder), seed, deadline, say)
    must_have_played(tally)
    say("")
    for text in summary(tally):
        say(text)
    write_json(arguments.json, tally.to_json())
    write_json(arguments.details, tally.details())
    return 1 if tally.failures else 0


def _play_wire(tally: Tally, folder: Path, seed: int, deadline: float | None, say: Say) -> None:
    shown = time.monotonic()
    for verdict in wire.play(folder, seed, deadline, say):
        tally.add_wire(verdict)
        if verdict.failures:
            say(f"failed: {verdict.case}: {verdict.failures[0].oracle}: {verdict.failures[0].text}")
        if time.monotonic() - shown >= _SAY_EVERY_S:
            shown = time.monotonic()
            say(
                f"{tally.counts['mqtt_packets_cut']} packets cut, {tally.counts['server_kills']} server kills"
            )


def summary(tally: Tally) -> list[str]:
    """A result in words."""
    result = tally.to_json() | tally.details()
    found = [
        f"{result['states']} states: {result['cuts']} cuts ({result['torn']} torn, "
        f"{result['second_cuts']} second cuts), {result['out_of_order']} out of order, "
        f"{result['bit_rot']} with a rotten bit,",
        f"{result['messages_cut']} cut or doubled messages, {result['content_faults']} content faults, "
        f"{result['plug_pulls']} plug pulls; {result['boots']} boots, {result['states_per_s']} states/s "
        f"({result['cpu_ms_per_state']} ms of computing each)",
        f"over real MQTT: {result['mqtt_packets_cut']} packets cut, {result['server_kills']} server kills",
        f"{result['failures']} failures",
    ]
    for one in result["failed"][:10]:
        found.append(f"failed: {one['line']}")
        found += [f"    {text}" for text in one["oracles"][:4]]
    if not result["complete"]:
        found.append("the budget ended before the list of states did")
    return found


def _wear(arguments: argparse.Namespace, place: world.World) -> int:
    with tempfile.TemporaryDirectory(prefix="tableside-wire-") as folder:
        found = wear.figures(place, wire.measure(Path(folder)))
    for text in wear.in_words(found):
        sayer(arguments.json)(text)
    write_json(arguments.json, found.to_json())
    return 0


def _replay_wire(case: wire_cases.WireCase) -> int:
    with tempfile.TemporaryDirectory(prefix="tableside-wire-") as folder:
        verdict = wire.replay(Path(folder), case)
    for failure in verdict.failures:
        print(f"{failure.oracle}: {failure.text}")
    if not verdict.happened:
        raise BenchError("BAD_LINE", f"{str(case)!r}: the update was over before that packet or commit came.")
    print(f"{case}: {len(verdict.failures)} failures")
    return 1 if verdict.failures else 0


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
    say = sayer(arguments.json)
    found = ota.hunt(seed, arguments.budget, say)
    survivors = [one for one in found["mutants"] if not one["caught"]]
    say(f"{len(found['mutants']) - len(survivors)} of {len(found['mutants'])} planted bugs caught")
    write_json(arguments.json, found)
    return 1 if survivors else 0


def _on_qemu(arguments: argparse.Namespace, seed: int) -> int:
    from bench.campaign import kills  # needs the whole rig

    say = sayer(arguments.json)
    result, details = kills.campaign(seed, arguments.kills, arguments.budget, say)
    say(f"{result['cuts']} power cuts on the QEMU board, {result['failures']} failures")
    write_json(arguments.json, result)
    write_json(arguments.details, details)
    return 1 if result["failures"] else 0


def _progress(arguments: argparse.Namespace) -> Any:
    say = sayer(arguments.json)
    shown = [0.0, 0]

    def progress(tally: Tally) -> None:
        for played in tally.failed[int(shown[1]) :]:
            say(f"failed: {played.line}")
        shown[1] = len(tally.failed)
        if tally.seconds - shown[0] >= 10 and tally.seconds:
            shown[0] = tally.seconds
            states = tally.counts["states"]
            rate = states / tally.seconds
            say(f"{tally.seconds:6.0f} s  {states} states, {rate:.0f}/s, {len(tally.failed)} failures")

    return progress
