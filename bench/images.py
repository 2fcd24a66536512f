"""Firmware images for the emulated boards, built when their inputs changed and cached otherwise.

An image is named by the SHA-256 of everything that goes into it: the device's Python, the board's C,
the root key, the pinned sources, the compilers and this file. MicroPython's and lwIP's source trees
stay as unpacked; make writes into ``build/work/<board>`` and the result goes to
``build/images/<board>-<digest>/``. A changed Python file costs a re-freeze and a link.

``python -m bench.images qemu`` builds from the command line.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bench.frozen import TRUST, trust
from bench.frozen import sources as frozen_sources
from bench.frozen import tree as firmware_tree

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
SOURCES = BUILD / "src"
MICROPYTHON = SOURCES / "micropython-1.25.0"
LWIP = SOURCES / "lwip-2.1.3"
MICROPYTHON_VERSION = "1.25.0"
KEPT_IMAGES = 12  # of a kind; a running bench may still start boards from one that is not the newest
RELEASE_EPOCH = "1744675200"  # 2025-04-15, the release's day: an image must not depend on the day it is built
ROOT_KEY = ROOT / "fixtures" / "keys" / "root.pub.der"

BoardName = Literal["qemu", "process"]
BOARDS: tuple[BoardName, ...] = ("qemu", "process")
Progress = Callable[[str], None]

_BOARD_FOLDER = {"qemu": "qemu_rv32", "process": "process"}
_BINARY = {"qemu": "firmware.elf", "process": "micropython"}
_COMPILER = {"qemu": "riscv64-unknown-elf-gcc", "process": "gcc"}


class ImageError(Exception):
    """A firmware image cannot be had; ``code`` is stable, the text names the next step."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Image:
    """A built firmware image.

    ``digest`` names the inputs (16 hex digits), ``sha256`` is the file's own hash, ``built`` tells a
    fresh build from a cached one.
    """

    board: BoardName
    path: Path
    digest: str
    sha256: str
    micropython: str
    built: bool


def _silent(_message: str) -> None:
    """Progress for callers that show none."""


def build(
    board: BoardName, *, progress: Progress = _silent, root_key: Path | None = ROOT_KEY, clean: bool = False
) -> Image:
    """Return the image of ``board``, building it when an input changed.

    ``root_key`` is the DER public key the image trusts; None, or a file that does not exist, leaves
    trust to the provisioning record. ``clean`` builds from nothing whatever is cached.

    Raises: ImageError (``unknown-board``, ``path-with-spaces``, ``toolchain-missing``,
    ``sources-missing``, ``build-failed``).
    """
    if board not in BOARDS:
        raise ImageError("unknown-board", f"There is no board {board!r}; there are: {', '.join(BOARDS)}.")
    _check_prerequisites(board)
    with _lock(progress):
        frozen = _stage_frozen(board, root_key)
        digest = _digest_inputs(board, frozen)
        folder = BUILD / "images" / f"{board}-{digest}"
        if clean:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(BUILD / "work" / board, ignore_errors=True)
            frozen = _stage_frozen(board, root_key)
        cached = _read_record(folder)
        if cached is not None:
            os.utime(folder)  # in use: not the next one to forget
            return cached
        progress(f"building the {board} image {digest}")
        binary = _make(board, frozen, progress)
        return _store(board, binary, digest, folder)


def build_changed(changed: Mapping[str, bytes], *, progress: Progress = _silent) -> Path:
    """Return a process board with some frozen files changed or added: frozen name to content.

    For benches that plant bugs. It is made in folders of its own; the newest few are kept below
    ``build/changed``. Raises: ImageError.
    """
    _check_prerequisites("process")
    with _lock(progress):
        honest = _stage_frozen("process", ROOT_KEY)
        frozen = BUILD / "work" / "process-changed-frozen"
        wanted = {path.relative_to(honest).as_posix(): path.read_bytes() for path in honest.rglob("*.py")}
        _write_tree(frozen, {**wanted, **changed})
        digest = _digest_inputs("process", frozen)
        binary = BUILD / "changed" / digest / _BINARY["process"]
        if not binary.exists():
            made = _make("process", frozen, progress, BUILD / "work" / "process-changed")
            binary.parent.mkdir(parents=True, exist_ok=True)
            unfinished = binary.with_suffix(".unfinished")
            shutil.copy2(made, unfinished)
            unfinished.rename(binary)
            _forget_old(binary.parent.parent.iterdir())
        return binary


def mpy_cross(*, progress: Progress = _silent) -> Path:
    """Return the compiler from .py to .mpy that belongs to the images, built on first use.

    Raises: ImageError.
    """
    _check_prerequisites("process")
    with _lock(progress):
        return _make_mpy_cross(progress)


def icount_plugin(*, progress: Progress = _silent) -> Path:
    """Return QEMU's instruction-counting plugin (a shared object for the host), built on first use.

    Raises: ImageError.
    """
    _check_prerequisites("process")
    source = ROOT / "firmware" / "boards" / "qemu_rv32" / "icount_plugin" / "icount_plugin.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    plugin = BUILD / "images" / f"icount-{digest}.so"
    with _lock(progress):
        if not plugin.exists():
            plugin.parent.mkdir(parents=True, exist_ok=True)
            unfinished = plugin.with_suffix(".tmp")
            flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
            _run(["gcc", *flags, "-o", str(unfinished), str(source)], BUILD / "work" / "icount.log")
            unfinished.rename(plugin)
    return plugin


def _check_prerequisites(board: BoardName) -> None:
    if " " in str(ROOT):
        raise ImageError(
            "path-with-spaces",
            f"make cannot build in a folder whose name has spaces: move the clone out of {str(ROOT)!r}.",
        )
    for tool in (_COMPILER[board], "gcc", "make"):
        if shutil.which(tool) is None:
            raise ImageError("toolchain-missing", f"{tool} is not installed: run ci/setup.")
    for tree in (MICROPYTHON, LWIP):
        if not tree.is_dir():
            raise ImageError("sources-missing", f"{tree.relative_to(ROOT)} is missing: run ci/setup.")


@contextmanager
def _lock(progress: Progress) -> Iterator[None]:
    """One build at a time in this clone; the kernel releases the lock however the holder ends."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "images.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build in this clone")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# ---- inputs ----


def _stage_frozen(board: BoardName, root_key: Path | None) -> Path:
    """Copy what will be frozen into one folder; unchanged files keep their time stamps for make."""
    folder = BUILD / "work" / f"{board}-frozen"
    wanted = frozen_sources(firmware_tree(ROOT), board)
    key = root_key.read_bytes() if root_key is not None and root_key.exists() else None
    _write_tree(folder, {**wanted, TRUST: trust(wanted, key)})
    return folder


def _write_tree(folder: Path, wanted: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files; what is the same keeps its time stamp."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [path for path in folder.rglob("*") if path.is_file()]:
        if stale.relative_to(folder).as_posix() not in wanted:
            stale.unlink()
    for name, content in wanted.items():
        target = folder / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _input_files(board: BoardName, frozen: Path) -> list[Path]:
    boards = ROOT / "firmware" / "boards"
    suffixes = {".c", ".h", ".ld", ".mk"}
    files = list(frozen.rglob("*.py"))
    for name in ("shared", _BOARD_FOLDER[board]):
        files += [path for path in (boards / name).rglob("*") if path.suffix in suffixes]
        files += (boards / name).rglob("manifest.py")
    files += [ROOT / "ci" / "sources.sha256", Path(__file__)]
    return sorted(set(files))


def _digest_inputs(board: BoardName, frozen: Path) -> str:
    digest = hashlib.sha256()
    for path in _input_files(board, frozen):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    version = subprocess.run([_COMPILER[board], "-dumpfullversion"], capture_output=True, check=False)
    digest.update(version.stdout)
    return digest.hexdigest()[:16]


# ---- make ----


def _run(command: list[str], log: Path) -> None:
    """Run a command with a fixed environment; its output goes to ``log``."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": RELEASE_EPOCH,
        "MICROPY_GIT_TAG": f"v{MICROPYTHON_VERSION}",
        "MICROPY_GIT_HASH": "debian",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise ImageError("build-failed", f"{command[0]} failed; the whole log is {log}. Its end:\n{tail}")


def _make_command(folder: Path, *variables: str) -> list[str]:
    jobs = min(4, os.cpu_count() or 1)
    return ["make", "-s", f"-j{jobs}", "-C", str(folder), f"PYTHON={sys.executable}", *variables]


def _make_mpy_cross(progress: Progress) -> Path:
    folder = BUILD / "work" / "mpy-cross"
    program = folder / "mpy-cross"
    if not program.exists():
        progress("building mpy-cross")
        unfinished = "mpy-cross-unfinished"
        _run(
            _make_command(MICROPYTHON / "mpy-cross", f"BUILD={folder}", f"PROG={unfinished}"),
            BUILD / "work" / "mpy-cross.log",
        )
        (folder / unfinished).rename(program)
    return program


def _make(board: BoardName, frozen: Path, progress: Progress, work: Path | None = None) -> Path:
    boards = ROOT / "firmware" / "boards"
    if work is None:
        work = BUILD / "work" / board
    library = BUILD / "work" / "micropython-lib"
    library.mkdir(parents=True, exist_ok=True)
    (library / "README.md").touch()  # what make takes for a checked-out library; we use none of it
    common = (
        f"BUILD={work}",
        f"USER_C_MODULES={boards}",
        f"MPY_LIB_DIR={library}",
        f"MICROPY_MPYCROSS={_make_mpy_cross(progress)}",
        f"MICROPY_MANIFEST_FROZEN={frozen}",
    )
    if board == "qemu":
        variables = (f"BOARD_DIR={boards / 'qemu_rv32'}", "BOARD=qemu_rv32", f"TABLESIDE_LWIP={LWIP}")
        command = _make_command(MICROPYTHON / "ports" / "qemu", *common, *variables)
    else:
        command = _make_command(
            MICROPYTHON / "ports" / "unix", *common, f"VARIANT_DIR={boards / 'process' / 'variant'}"
        )
    _run(command, BUILD / "work" / f"{work.name}.log")
    return work / _BINARY[board]


# ---- the cache ----


def _store(board: BoardName, binary: Path, digest: str, folder: Path) -> Image:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shutil.copy2(binary, unfinished / binary.name)
    sha256 = hashlib.sha256(binary.read_bytes()).hexdigest()
    image = Image(board, folder / binary.name, digest, sha256, MICROPYTHON_VERSION, True)
    record = asdict(image) | {"path": binary.name}
    (unfinished / "image.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    _forget_old((BUILD / "images").glob(f"{board}-*"))
    return image


def _forget_old(folders: Iterable[Path]) -> None:
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_IMAGES:]:
        shutil.rmtree(folder)


def _read_record(folder: Path) -> Image | None:
    record = folder / "image.json"
    if not record.exists():
        return None
    fields = json.loads(record.read_text())
    return Image(**fields | {"path": folder / fields["path"], "built": False})


def main(arguments: list[str] | None = None) -> int:
    """Build the named images and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=__doc__.splitlines()[0])
    parser.add_argument("board", nargs="*", choices=[*BOARDS, []], help="default: every board")
    parser.add_argument("--clean", action="store_true", help="build from nothing")
    options = parser.parse_args(arguments)
    try:
        for board in options.board or BOARDS:
            image = build(board, progress=lambda text: print(text, file=sys.stderr), clean=options.clean)
            print(f"{image.board} {image.digest} {image.path}")
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
