"""`tableside bench campaign --layer image`: the campaign for firmware images."""

from __future__ import annotations

import argparse
import json
import random
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.boards.flashmap import REGIONS
from bench.campaign import image_plan, images, lines
from bench.campaign.image_player import (
    APPS_AT,
    CHIP_ID,
    NO_ROLLBACK,
    OTADATA_AT,
    ImagePlayer,
    Releases,
    write_releases,
)
from bench.campaign.run import Tally
from bench.cli.campaign_lines import must_have_played, of_image
from bench.cli.output import sayer, write_json
from bench.errors import BenchError
from bench.esp32 import appimage
from bench.esp32.build import split_micropython
from bench.mutants import image as mutants

EXIT_INTERRUPTED = 130
_SAY_EVERY_S = 10.0
_SHOWN = 10
Say = Callable[[str], None]


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code. Raises: BenchError."""
    if arguments.board != "process" or arguments.wear or arguments.only:
        raise BenchError(
            "NOT_FOR_IMAGES",
            "Firmware images are played on the process board's model of a chip, on its flash alone: leave "
            "--board, --only and --wear out.",
        )
    say = sayer(arguments.json)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    image = images.small_image() if arguments.micropython is None else _published(arguments.micropython)
    with tempfile.TemporaryDirectory(prefix="tableside-image-") as folder:
        releases = write_releases(image, Path(folder))
        if arguments.mutants:
            return _mutants(arguments, releases, seed, say)
        if arguments.replay is not None:
            return _replay(releases, of_image(arguments.replay, releases.flash_bytes))
        if arguments.export is not None:
            line = of_image(arguments.export[0], releases.flash_bytes)
            return _export(releases, line, Path(arguments.export[1]))
        return _play(arguments, releases, seed, say)


def _published(path: Path) -> appimage.AppImage:
    """The application of a published MicroPython image."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError("NO_FILE", f"Cannot read the image {path}: {error.strerror}.") from error
    micropython = split_micropython(data, str(path))
    if micropython.chip.image_id != CHIP_ID:
        raise BenchError(
            "WRONG_CHIP", f"The campaign's chip is an ESP32-C3, {path} is for {micropython.chip.name}."
        )
    return appimage.parse(micropython.application, str(path))


def _play(arguments: argparse.Namespace, releases: Releases, seed: int, say: Say) -> int:
    with images.crew(releases, arguments.workers) as crew:
        goldens = crew.goldens()
        tasks = image_plan.tasks(goldens, seed, arguments.second)
        tally, progress = images.blank_tally(crew, seed), _progress(arguments.micropython, say)
        is_interrupted = False
        try:
            say(f"seed {seed}; one update is {len(goldens['new'])} flash steps; {len(tasks)} first states")
            images.campaign(crew, tally, tasks, arguments.budget, progress)
        except KeyboardInterrupt:
            is_interrupted = True
    must_have_played(tally)
    if is_interrupted and not tally.counts["states"]:
        say("interrupted before the first state; everything it started is stopped")
        return EXIT_INTERRUPTED
    for text in summary(tally):
        say(text)
    write_json(arguments.json, tally.to_json())
    write_json(arguments.details, tally.details())
    if is_interrupted:
        say("interrupted; everything it started is stopped, the figures are of what was played until then")
        return EXIT_INTERRUPTED
    return 1 if tally.failures else 0


def summary(tally: Tally) -> list[str]:
    """A result in words."""
    result = tally.to_json() | tally.details()
    found = [
        f"{result['states']} states: {result['cuts']} cuts ({result['torn']} torn, "
        f"{result['second_cuts']} second cuts), {result['bit_rot']} with a rotten bit, "
        f"{result['chip_faults']} chips that do not do as they are told;",
        f"{result['boots']} starts, {result['states_per_s']} states/s "
        f"({result['cpu_ms_per_state']} ms of computing each)",
        f"{result['failures']} failures",
    ]
    if not result["complete"]:
        found.append("not all of the list was played")
    return found


def _progress(micropython: Path | None, say: Say) -> Callable[[Tally], None]:
    shown = [-_SAY_EVERY_S, 0]
    image = "" if micropython is None else f" --micropython {shlex.quote(str(micropython))}"

    def progress(tally: Tally) -> None:
        for played in tally.failed[int(shown[1]) : _SHOWN]:
            say(f"failed: {played.line}")
            for failure in played.failures:
                say(f"    {failure.oracle}: {failure.text}")
            line = shlex.quote(str(played.line))
            say(f"    again: tableside bench campaign --layer image{image} --replay {line}")
        shown[1] = len(tally.failed)
        if tally.seconds - shown[0] >= _SAY_EVERY_S:
            shown[0] = tally.seconds
            states = tally.counts["states"]
            failed = len(tally.failed)
            say(f"{tally.seconds:6.0f} s  {states} states, {states / tally.seconds:.0f}/s, {failed} failures")

    return progress


def _replay(releases: Releases, line: lines.Line) -> int:
    with ImagePlayer(releases) as player:
        player.goldens()
        verdict = player.play(line)
    print(verdict.console, end="")
    for failure in verdict.failures:
        print(f"{failure.oracle}: {failure.text}")
    print(f"{line}: {verdict.starts} starts, {len(verdict.failures)} failures, flash {verdict.hash:032x}")
    return 1 if verdict.failures else 0


def _export(releases: Releases, line: lines.Line, file: Path) -> int:
    """Write a state's whole flash, and say where in it things are."""
    try:
        file.touch()
    except OSError as error:
        raise BenchError("NOT_WRITTEN", f"Cannot write {file}: {error.strerror}.") from error
    with ImagePlayer(releases) as player:
        named = player.export(line, file.absolute())
    print(f"{file}: {releases.flash_bytes} bytes, flash {named}")
    for name, at in layout(releases).items():
        print(f"  {at:#08x}  {name}")
    print("a process board starts it with the boot option")
    print(f"  {json.dumps(boot_option(releases, line))}")
    return 0


def layout(releases: Releases) -> dict[str, int]:
    """Where in an exported flash the parts an update touches begin."""
    regions = {name: REGIONS[name].start for name in ("control", "image", "vfs")}
    return regions | {"otadata": OTADATA_AT, "ota_0": APPS_AT, "ota_1": APPS_AT + releases.apps_bytes}


def boot_option(releases: Releases, line: lines.Line) -> dict[str, object]:
    """What a process board has to be told to start an exported flash."""
    rollback = not line.golden.endswith(NO_ROLLBACK)
    chip = {"at": OTADATA_AT, "size": releases.apps_bytes, "chip_id": CHIP_ID, "rollback": rollback}
    return {"partitions": chip}


def _mutants(arguments: argparse.Namespace, releases: Releases, seed: int, say: Say) -> int:
    table = mutants.hunt(releases, seed, arguments.workers, arguments.budget, say)
    caught = sum(row["caught"] for row in table["mutants"])
    say(f"{caught} of {len(table['mutants'])} planted bugs caught")
    write_json(arguments.json, table)
    return 0 if caught == len(table["mutants"]) else 1
