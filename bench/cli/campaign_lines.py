"""What the campaign's command lines take: counts above zero, and lines of states that can be played.

A line that is well-formed (bench/campaign/lines.py) may still name what no layer has: that is said here,
before anything is built or booted. What depends on the update's own length is judged when it is played.
"""

from __future__ import annotations

import argparse

from bench.boards.flashmap import FLASH_BYTES
from bench.campaign import image_plan, lines, wire_cases
from bench.campaign.lines import CHIP, CONTENT, CUT, LOSE, ROT, Fault, Line
from bench.campaign.player import CONTENTS
from bench.campaign.run import Tally
from bench.campaign.world import World
from bench.errors import BenchError

WIRE = "wire"
_CHIPS = tuple(text.partition("chip=")[2] for text in image_plan.CHIPS)
_FROM_ZERO = (CUT, ROT, LOSE)  # the others count what happens, and the first one is 1


def count(text: str) -> int:
    """A number of at least one. Raises: argparse.ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


def of_application(text: str) -> Line:
    """Read a line of the application's campaign. Raises: BenchError(BAD_LINE)."""
    line = lines.parse(text)
    for fault in line.faults:
        _judge(line, fault, FLASH_BYTES)
        if fault.kind == CHIP:
            raise _bad(line, f"{fault} is a fault of a chip: it goes with --layer image")
    return line


def judge_contents(line: Line, place: World) -> None:
    """Refuse contents nobody serves. Raises: BenchError(BAD_LINE)."""
    known = (*CONTENTS, *sorted(place.hostile), *place.rotations)
    for fault in line.faults:
        if fault.kind == CONTENT and fault.name not in known:
            raise _bad(line, f"{fault} is not known; there are: {', '.join(known)}")


def of_image(text: str, flash_bytes: int) -> Line:
    """Read a line of the image campaign; its chip's flash has `flash_bytes`. Raises: BenchError(BAD_LINE)."""
    line = lines.parse(text)
    for fault in line.faults:
        _judge(line, fault, flash_bytes)
        if fault.kind not in (CUT, ROT, CHIP):
            raise _bad(line, f"{fault} is a fault of an application's update: leave --layer image out")
        if fault.kind == CHIP and fault.name not in _CHIPS:
            raise _bad(line, f"{fault} is not known; there are: {', '.join(_CHIPS)}")
    return line


def of_wire(text: str) -> wire_cases.WireCase:
    """Read a line of a fault over real MQTT. Raises: BenchError(BAD_LINE)."""
    case = wire_cases.parse(text)
    if case.number < 1:
        raise BenchError("BAD_LINE", f"{text!r}: packets and commits are counted from 1.")
    return case


def must_have_played(tally: Tally) -> None:
    """Refuse to call nothing a success. Raises: BenchError(NOTHING_PLAYED)."""
    counts = tally.counts
    if not (
        counts["states"] or counts["mqtt_packets_cut"] or counts["server_kills"] or counts["interrupted"]
    ):
        raise BenchError("NOTHING_PLAYED", "The budget ended before one state was played: give it more.")


def _judge(line: Line, fault: Fault, flash_bytes: int) -> None:
    if fault.number < 0 or fault.seed < 0 or fault.keep < lines.WHOLE:
        raise _bad(line, f"{fault} has a number below zero")
    if fault.kind == ROT and fault.number >= flash_bytes * 8:
        raise _bad(line, f"{fault} lies behind the {flash_bytes * 8} bits of the flash")
    if not fault.name and fault.number == 0 and fault.kind not in _FROM_ZERO:
        raise _bad(line, f"{fault} happens never: it is counted from 1")


def _bad(line: Line, why: str) -> BenchError:
    return BenchError("BAD_LINE", f"{str(line)!r}: {why}.")
