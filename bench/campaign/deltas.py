"""What a delta would save: changed modules whole, compressed, or as a delta, against the whole package.

`python -m bench.campaign.deltas REVISION` compares the terminal's modules of a git revision with today's,
compiled as they are for the chip. The delta is DEFLATE with the old module as its dictionary: it finds what
a binary delta finds in files of this size, and needs what MicroPython has (deflate) to be taken apart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.images import mpy_cross
from bench.paths import ROOT

PACKAGE = "firmware/terminal"
_LEVEL = 9
_WINDOW_BITS = -15


@dataclass(frozen=True)
class Sizes:
    """Bytes on the wire for one step from a revision to today. `changed` of `modules` modules differ."""

    modules: int
    changed: int
    package: int
    whole: int
    compressed: int
    delta: int


def measure(revision: str) -> Sizes:
    """Compare the modules of a revision with today's. Raises: BenchError(NO_REVISION, NOT_COMPILED)."""
    now = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / PACKAGE).rglob("*.py")}
    package = changed = whole = compressed = delta = 0
    for path, source in sorted(now.items()):
        made = _compile(path, source)
        package += len(made)
        before = _source_at(revision, path)
        if before == source:
            continue
        changed += 1
        whole += len(made)
        compressed += len(_deflate(made, b""))
        delta += len(_deflate(made, _compile(path, before) if before is not None else b""))
    return Sizes(len(now), changed, package, whole, compressed, delta)


def _source_at(revision: str, path: str) -> str | None:
    """A file as it was, None if it was not there."""
    known = subprocess.run(
        ["git", "rev-parse", "--verify", revision], cwd=ROOT, capture_output=True, check=False
    )
    if known.returncode:
        raise BenchError("NO_REVISION", f"git knows no revision {revision!r} here.")
    shown = subprocess.run(["git", "show", f"{revision}:{path}"], cwd=ROOT, capture_output=True, check=False)
    return shown.stdout.decode() if shown.returncode == 0 else None


def _compile(path: str, source: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder, "module.py"), Path(folder, "module.mpy")
        text.write_text(source)
        command = [str(mpy_cross()), "-march=rv32imc", "-s", path, "-o", str(made), str(text)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise BenchError("NOT_COMPILED", f"mpy-cross refuses {path}: {done.stderr.decode().strip()}")
        return made.read_bytes()


def _deflate(content: bytes, dictionary: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, zdict=dictionary)
    return packer.compress(content) + packer.flush()


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each revision."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.campaign.deltas", description=__doc__.splitlines()[0]
    )
    parser.add_argument("revision", nargs="+", help="what a terminal in service may run")
    try:
        for revision in parser.parse_args(arguments).revision:
            s = measure(revision)
            print(
                f"{revision}: {s.changed} of {s.modules} modules changed; package {s.package} bytes, "
                f"changed modules {s.whole}, compressed {s.compressed}, delta {s.delta}"
            )
    except BenchError as error:
        print(error.text, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
