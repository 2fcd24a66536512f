"""Building a release's bundle from a checkout: the modules that differ from the image it is for, compiled.

The same sources make the same bytes: files are sorted, nothing depends on time or place, and the compiler is
the mpy-cross of the firmware's own MicroPython. The bundle names its image twice: by number in the manifest,
by digest (bench/frozen.py) in assets/image.txt.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import frozen, releases
from bench.errors import BenchError
from bench.paths import ROOT
from server.releases.bundle import Draft, Target, draft_bundle

_LEFT_OUT = {frozen.TRUST, "terminal/mqtt/transport_cpython.py"}  # made with an image; another interpreter's
_NUMBER = re.compile(r"^VERSION = 0x[0-9a-f]{6}$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """What to build: a release for a hardware class, over the image made of the `image` sources (bytes by
    their name in it)."""

    hardware: str
    version: int
    image: Mapping[str, bytes]
    floor: int = 0
    group: str = ""
    assets: Mapping[str, bytes] | None = None


def checkout_sources(hardware: str, root: Path = ROOT) -> dict[str, bytes]:
    """What an image for a hardware class is made of in a checkout: name in the image -> content.

    Raises: BenchError(NO_SOURCES, UNKNOWN_HARDWARE).
    """
    return _judged(frozen.tree(root), hardware, str(root / frozen.FOLDER))


def revision_sources(hardware: str, revision: str) -> dict[str, bytes]:
    """The same as git has it at a revision. Raises: BenchError(NO_SOURCES, UNKNOWN_HARDWARE)."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", revision, frozen.FOLDER],
        capture_output=True,
        check=False,
    )
    if packed.returncode:
        raise BenchError(
            "NO_SOURCES", f"git does not know {revision!r}: name the tag the image was built from."
        )
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".py"):
                found[member.name.removeprefix(frozen.FOLDER + "/")] = file.read()
    return _judged(found, hardware, revision)


def _judged(tree: dict[str, bytes], hardware: str, where: str) -> dict[str, bytes]:
    found = frozen.sources(tree, frozen.board_of(hardware))
    if "terminal/version.py" not in found:
        raise BenchError("NO_SOURCES", f"{where} has no terminal/version.py: is it this project's firmware?")
    return found


def number_of(sources: Mapping[str, bytes]) -> int:
    """The release number an application calls itself. Raises: BenchError(NO_VERSION)."""
    for node in ast.parse(sources["terminal/version.py"]).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return int(str(node.value.value))
    raise BenchError("NO_VERSION", "terminal/version.py has no VERSION.")


def out_of_reach(plan: Plan) -> list[str]:
    """Files of the image that differ from this checkout's and that no bundle can replace."""
    now = checkout_sources(plan.hardware)
    return [
        name
        for name in sorted({*now, *plan.image})
        if not name.startswith("terminal/")
        and name not in frozen.BENCH_ONLY
        and now.get(name) != plan.image.get(name)
    ]


def build(plan: Plan) -> Draft:
    """Build the unsigned bundle that brings a terminal with `plan.image` to this checkout.

    Raises: BenchError(VERSION_TOO_LOW, UNKNOWN_HARDWARE, NOT_COMPILED), Refusal(BAD_RELEASE, WRONG_CODE).
    """
    image = number_of(plan.image)
    if plan.version <= image:
        raise BenchError(
            "VERSION_TOO_LOW",
            f"The release must be above the image's own {_text(image)}: number it {_text(image + 1)} or up.",
        )
    assets = dict(sorted((plan.assets or {}).items()))
    files = releases.files(_changed(plan), plan.hardware, assets, frozen.digest(plan.image))
    target = Target(plan.hardware, plan.version, plan.floor, image, image, plan.group)
    return draft_bundle(files, target)


def _changed(plan: Plan) -> dict[str, str]:
    """The modules that differ from the image's, by module name; the version always does."""
    found = {}
    for path, body in checkout_sources(plan.hardware).items():
        if not path.startswith("terminal/") or path in _LEFT_OUT:
            continue
        text = body.decode()
        if path == "terminal/version.py":
            text = _NUMBER.sub(f"VERSION = 0x{plan.version:06x}", text)
        before = plan.image.get(path)
        if before is None or not _same_code(path, text, before.decode(), plan.hardware):
            found[_module(path)] = text
    return found


def _same_code(path: str, text: str, other: str, hardware: str) -> bool:
    """Whether two sources compile to the same bytes: a changed comment is no reason to send a module."""
    if text == other:
        return True
    now = releases.compiled(text, path, hardware)
    try:
        return releases.compiled(other, path, hardware) == now
    except BenchError:
        return False  # the image had code for another processor there


def _module(path: str) -> str:
    name = path.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


def _text(version: int) -> str:
    return f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"
