"""Building a release's bundle from a checkout: the modules that differ from the image it is for, compiled.

The same sources make the same bytes: files are sorted, nothing depends on time or place, and the compiler is
the mpy-cross of the firmware's own MicroPython. The bundle names its image twice: by number in the manifest,
by digest in assets/image.txt.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import releases
from bench.errors import BenchError
from bench.paths import ROOT
from server.releases.bundle import Draft, Target, draft_bundle
from server.releases.images import IMAGE_FILE, image_digest, image_file

_FOLDER = "firmware/terminal"
_LEFT_OUT = {"terminal/trust.py", "terminal/mqtt/transport_cpython.py"}
_NUMBER = re.compile(r"^VERSION = 0x[0-9a-f]{6}$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """What to build: a release for a hardware class, over `image`, the sources of the image it is for."""

    hardware: str
    version: int
    image: Mapping[str, str]
    floor: int = 0
    group: str = ""
    assets: Mapping[str, bytes] | None = None


def checkout_sources(root: Path = ROOT) -> dict[str, str]:
    """The terminal's sources in a checkout: frozen path to text. Raises: BenchError(NO_SOURCES)."""
    folder = root / _FOLDER
    found = {
        f"terminal/{path.relative_to(folder).as_posix()}": path.read_text("utf-8")
        for path in sorted(folder.rglob("*.py"))
    }
    return _judged(found, str(folder))


def revision_sources(revision: str) -> dict[str, str]:
    """The terminal's sources as git has them at a revision. Raises: BenchError(NO_SOURCES)."""
    listed = _git(revision, "ls-tree", "-r", "--name-only", revision, "--", _FOLDER)
    paths = [path for path in listed.splitlines() if path.endswith(".py")]
    found = {
        f"terminal/{Path(path).relative_to(_FOLDER).as_posix()}": _git(revision, "show", f"{revision}:{path}")
        for path in sorted(paths)
    }
    return _judged(found, revision)


def _git(revision: str, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            "NO_SOURCES", f"git does not know {revision!r}: name the tag the image was built from."
        )
    return done.stdout


def _judged(found: dict[str, str], where: str) -> dict[str, str]:
    sources = {path: text for path, text in found.items() if path not in _LEFT_OUT}
    if "terminal/version.py" not in sources:
        raise BenchError("NO_SOURCES", f"{where} has no terminal/version.py: is it this project's firmware?")
    return sources


def digest_of(sources: Mapping[str, str]) -> bytes:
    """The digest that names an image made of these sources."""
    return image_digest({path: text.encode() for path, text in sources.items()})


def number_of(sources: Mapping[str, str]) -> int:
    """The release number an application calls itself. Raises: BenchError(NO_VERSION)."""
    for node in ast.parse(sources["terminal/version.py"]).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return int(str(node.value.value))
    raise BenchError("NO_VERSION", "terminal/version.py has no VERSION.")


def build(plan: Plan) -> Draft:
    """Build the unsigned bundle that brings a terminal with `plan.image` to this checkout.

    Raises: BenchError(VERSION_TOO_LOW, UNKNOWN_HARDWARE, NOT_COMPILED), Refusal(BAD_RELEASE).
    """
    releases.check_hardware(plan.hardware)
    image = number_of(plan.image)
    if plan.version <= image:
        raise BenchError(
            "VERSION_TOO_LOW",
            f"The release must be above the image's own {_text(image)}: number it {_text(image + 1)} or up.",
        )
    assets = {**(plan.assets or {}), Path(IMAGE_FILE).name: image_file(digest_of(plan.image))}
    files = releases.files(_changed(plan), plan.hardware, dict(sorted(assets.items())))
    target = Target(plan.hardware, plan.version, plan.floor, image, image, plan.group)
    return draft_bundle(files, target)


def _changed(plan: Plan) -> dict[str, str]:
    """The modules that differ from the image's, by module name; the version always does."""
    now = checkout_sources()
    now["terminal/version.py"] = _NUMBER.sub(f"VERSION = 0x{plan.version:06x}", now["terminal/version.py"])
    return {
        _module(path): text
        for path, text in now.items()
        if plan.image.get(path) != text and not _same_code(path, text, plan.image.get(path), plan.hardware)
    }


def _same_code(path: str, text: str, other: str | None, hardware: str) -> bool:
    """Whether two sources compile to the same bytes: a changed comment is no reason to send a module."""
    now = releases.compiled(text, path, hardware)
    if other is None:
        return False
    try:
        return releases.compiled(other, path, hardware) == now
    except BenchError:
        return False  # the image had code for another processor there


def _module(path: str) -> str:
    name = path.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


def _text(version: int) -> str:
    return f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"
