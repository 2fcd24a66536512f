"""`tableside bench campaign --layer image`: the campaign for firmware images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.campaign import images
from bench.errors import BenchError
from bench.esp32 import appimage
from bench.esp32.build import split_micropython
from bench.mutants import image as mutants

_SHOWN = 10


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """Play it -> the result as JSON values, and whether all went well. Raises: BenchError."""
    if arguments.board != "process" or arguments.replay or arguments.export or arguments.wear:
        raise BenchError(
            "NOT_FOR_IMAGES",
            "Firmware images are played on the process board's model of a chip, without --replay, --export "
            "and --wear: leave those out.",
        )
    image = images.small_image() if arguments.micropython is None else _published(arguments.micropython)
    if arguments.mutants:
        table = mutants.hunt(image, say)
        caught = sum(row["caught"] for row in table["mutants"])
        say(f"{caught} of {len(table['mutants'])} planted bugs caught")
        return table, caught == len(table["mutants"])
    result = images.campaign(image, arguments.budget, arguments.workers, say)
    for line, text in result["failed"][:_SHOWN]:
        say(f"failed: {line}: {text}")
    say(
        f"{result['states']} states: {result['cuts']} cuts, {result['torn']} torn, "
        f"{result['second_cuts']} second cuts; {result['starts']} starts, {result['states_per_s']} states/s, "
        f"{result['failures']} failures"
    )
    if not result["complete"]:
        say("the budget ended before the list did")
    return result, not result["failed"]


def _published(path: Path) -> appimage.AppImage:
    """The application of a published MicroPython image."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError("NO_FILE", f"Cannot read the image {path}: {error.strerror}.") from error
    micropython = split_micropython(data, str(path))
    if micropython.chip.image_id != images.CHIP_ID:
        raise BenchError(
            "WRONG_CHIP", f"The campaign's chip is an ESP32-C3, {path} is for {micropython.chip.name}."
        )
    return appimage.parse(micropython.application, str(path))
