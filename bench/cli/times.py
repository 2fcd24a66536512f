"""Times as people write them on a command line."""

from __future__ import annotations

import argparse
import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Seconds, more than none, from 90s, 3m or 1h; a plain number is seconds.

    Raises: argparse.ArgumentTypeError.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 90s, 3m, 1h")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no time for anything")
    return seconds
