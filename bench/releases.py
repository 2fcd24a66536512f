"""Firmware bundles for the bench: the terminal's own modules, some of them changed, compiled and signed.

A bundle carries the modules that differ from the image, the list of all modules with the place each comes
from (firmware/terminal/ota/loader.py), and the digest of the image it was made over. They are compiled by the
mpy-cross that belongs to the image; a Raspberry Pi takes source text.
"""

from __future__ import annotations

import ast
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from bench import frozen
from bench.errors import BenchError
from bench.images import mpy_cross
from bench.paths import ROOT
from bench.suites.forging import fixture_signer
from server.releases.bundle import Bundle, Target, build_bundle, certify
from server.releases.images import IMAGE_FILE, MODULES_FILE, image_file

PACKAGE = ROOT / "firmware" / "terminal"
START = ("terminal.app", "terminal.agent")
_ELSEWHERE = {"terminal.trust"}  # made when the image is built; a bundle never has it
_NOT_HERE = {"terminal.mqtt.transport_cpython"}
_ARCHITECTURE = {  # hardware class -> for which processor modules are compiled; others take source text
    "qemu-rv32": ["-march=rv32imc"],
    "process": ["-march=x64"],
    "esp32-xtensawin": ["-march=xtensawin"],
    "esp32-rv32imc": ["-march=rv32imc"],
}


def release(major: int, minor: int, patch: int) -> int:
    """A release number: major << 16 | minor << 8 | patch."""
    return major << 16 | minor << 8 | patch


def image_release() -> int:
    """The release the image's own application calls itself."""
    for node in ast.parse(_source("terminal.version")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return int(str(node.value.value))
    raise BenchError("NO_VERSION", f"{PACKAGE}/version.py has no VERSION.")


def versioned(version: int, changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Sources of the modules an update changes: the version, and `changed` (module name to source)."""
    numbered = _source("terminal.version").replace(f"0x{image_release():06x}", f"0x{version:06x}")
    return {"terminal.version": numbered, **(changed or {})}


def files(
    sources: Mapping[str, str],
    hardware: str,
    assets: Mapping[str, bytes] | None = None,
    image: bytes | None = None,
) -> dict[str, bytes]:
    """The files of a bundle that replaces these modules (name to source); `assets` by file name.

    `image` is the digest of the image it goes over; this checkout's without.
    Raises: BenchError(NOT_COMPILED, UNKNOWN_HARDWARE).
    """
    left_out = _left_out(hardware)
    sources = {name: text for name, text in sources.items() if name not in left_out}
    sources = {part: sources.get(part, _source(part)) for name in sources for part in _parts(_unit(name))}
    order = [name for name in import_order(sources) if name not in left_out]
    lines = [f"{'slot' if name in sources else 'image'} {name}\n" for name in order]
    made = {MODULES_FILE: "".join(lines).encode(), IMAGE_FILE: image_file(image or checkout_digest(hardware))}
    for name, content in (assets or {}).items():
        made[f"assets/{name}"] = content
    for name, source in sources.items():
        path = _path(name, hardware)
        made[path] = compiled(source, path, hardware)
    return made


def _left_out(hardware: str) -> set[str]:
    """Modules of the bench that the images of a hardware class do not have."""
    if frozen.board_of(hardware) != "esp32":
        return set()
    return {path.removesuffix(".py").replace("/", ".") for path in frozen.BENCH_ONLY}


def checkout_digest(hardware: str) -> bytes:
    """The digest of an image made of this checkout. Raises: BenchError(UNKNOWN_HARDWARE)."""
    return frozen.digest(frozen.sources(frozen.tree(), frozen.board_of(hardware)))


def bundle(
    target: Target, content: Mapping[str, bytes], signer: str = "release", certifier: str = "root"
) -> Bundle:
    """A signed bundle; `signer` and `certifier` name fixture keys."""
    key = fixture_signer(signer)
    return build_bundle(content, target, key, certify(fixture_signer(certifier), key.spki))


# ---------------------------------------------------------------- modules and their order


def import_order(sources: Mapping[str, str]) -> list[str]:
    """Every module the application imports at its start, dependencies first, and whatever `sources` adds."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        unit = _unit(name)
        if unit in seen:
            return
        seen.add(unit)
        parent = unit.rpartition(".")[0]
        if parent:
            visit(parent)
        for part in _parts(unit):
            for needed in _imports(part, sources.get(part)):
                visit(needed)
        order.append(unit)

    for name in (*START, *sources):
        visit(name)
    return order


def _unit(name: str) -> str:
    """What a module is imported with: its package, if that imports its own modules, else itself."""
    parent = name.rpartition(".")[0]
    if parent and any(_imports(parent, None)):
        return parent
    return name


def _parts(unit: str) -> list[str]:
    """The modules of a unit."""
    if not _is_package(unit) or not any(_imports(unit, None)):
        return [unit]
    found = (PACKAGE.parent / unit.replace(".", "/")).glob("*.py")
    names = sorted(f"{unit}.{path.stem}" for path in found if path.stem != "__init__")
    return [unit, *(name for name in names if _exists(name))]


def _imports(name: str, source: str | None) -> Iterator[str]:
    """Modules of the package that `name` imports while it is imported."""
    for found in _import_statements(ast.parse(_source(name) if source is None else source).body):
        if isinstance(found, ast.Import):
            candidates = [alias.name for alias in found.names]
        else:
            base = _absolute(name, found)
            candidates = [base, *(f"{base}.{alias.name}" for alias in found.names)]
        for candidate in candidates:
            if candidate.startswith("terminal") and _exists(candidate):
                yield candidate


def _import_statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            handlers = [handler.body for handler in node.handlers] if isinstance(node, ast.Try) else []
            for part in (node.body, *handlers, node.orelse):
                yield from _import_statements(part)


def _absolute(name: str, found: ast.ImportFrom) -> str:
    if not found.level:
        return found.module or ""
    package = name if _is_package(name) else name.rpartition(".")[0]
    for _ in range(found.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{found.module}" if found.module else package


def _exists(name: str) -> bool:
    return name not in _ELSEWHERE | _NOT_HERE and _source_path(name).exists()


def _is_package(name: str) -> bool:
    return (ROOT / "firmware" / name.replace(".", "/")).is_dir()


def _path(name: str, hardware: str) -> str:
    stem = name.replace(".", "/") + ("/__init__" if _is_package(name) else "")
    return stem + (".mpy" if hardware in _ARCHITECTURE else ".py")


def _source_path(name: str) -> Path:
    return ROOT / "firmware" / (name.replace(".", "/") + ("/__init__.py" if _is_package(name) else ".py"))


@cache
def _source(name: str) -> str:
    return _source_path(name).read_text()


@cache
def _compiler() -> Path:
    return mpy_cross()


@cache
def compiled(source: str, path: str, hardware: str) -> bytes:
    """A module as a hardware class takes it, .mpy but for the Raspberry Pi; `path` is what it calls itself.

    Raises: BenchError(NOT_COMPILED).
    """
    if hardware not in _ARCHITECTURE:
        return source.encode()
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder, "module.py"), Path(folder, "module.mpy")
        text.write_text(source)
        done = subprocess.run(
            [_compiler(), *_ARCHITECTURE[hardware], "-s", path, "-o", made, text],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise BenchError("NOT_COMPILED", f"mpy-cross refuses {path}: {done.stderr.decode().strip()}")
        return made.read_bytes()
