"""Where a command's result goes as JSON: a file, or standard output for `-`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option --json: a file that can be written, seen before any work begins."""
    parser.add_argument(
        "--json", metavar="FILE", type=place, help="also write the result as JSON (- for standard output)"
    )


def place(text: str) -> str:
    """A file name whose folder is there, or `-`. Raises: argparse.ArgumentTypeError."""
    if text != "-" and not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).absolute().parent} to write into")
    return text


def sayer(file: str | None) -> Callable[[str], None]:
    """Prints lines for people: to standard error where standard output is the JSON's."""
    stream = sys.stderr if file == "-" else sys.stdout
    return lambda text: print(text, file=stream, flush=True)


def write_json(file: str | None, result: object) -> None:
    """Write a result where --json said, if it did.

    Raises: BenchError(NOT_WRITTEN).
    """
    if file is None:
        return
    text = json.dumps(result, indent=1) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError("NOT_WRITTEN", f"Cannot write {file}: {error.strerror}.") from error
