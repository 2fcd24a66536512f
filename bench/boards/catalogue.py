"""The kinds of boards the bench knows, what each is for, and what it still needs on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import images
from bench.boards import esp32, process, qemu
from bench.boards.base import Board
from bench.errors import BenchError


@dataclass(frozen=True)
class Firmware:
    """A built firmware image: file, SHA-256 of its inputs and the MicroPython in it."""

    path: Path
    digest: str
    micropython: str
    built: bool


@dataclass(frozen=True)
class Kind:
    """One kind of board. `runs` is False for kinds that are listed but cannot yet be driven by the bench."""

    name: str
    what: str
    purpose: str
    features: frozenset[str]
    runs: bool
    needs: Callable[[], list[str]]


def _needs_qemu() -> list[str]:
    return _missing_programs(qemu.QEMU, "setpriv")


def _needs_process() -> list[str]:
    return _missing_programs("setpriv")


def _missing_programs(*programs: str) -> list[str]:
    return [f"{program} (run ci/setup)" for program in programs if shutil.which(program) is None]


def _needs_esp32() -> list[str]:
    return [
        "an ESP32 on a serial port: name it with --port URL",
        "firmware on it: tableside firmware flash --port URL",
    ]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "qemu",
            "qemu-system-riscv32, machine virt, MicroPython on emulated NOR flash and virtio network",
            "everything (default)",
            qemu.FEATURES,
            True,
            _needs_qemu,
        ),
        Kind(
            "process",
            "the unix port of the same firmware, console behind a pty, flash in a file",
            "fast loops, power-cut campaigns, fleets",
            process.FEATURES,
            True,
            _needs_process,
        ),
        Kind(
            "esp32",
            "a real ESP32, -S3, -C3 or -C6 on a serial URL, reset by DTR/RTS",
            "the lab",
            esp32.FEATURES,
            True,
            _needs_esp32,
        ),
    )
}


def kind(name: str) -> Kind:
    """Look a kind up.

    Raises: BenchError(NO_SUCH_BOARD) naming the kinds there are.
    """
    if name not in KINDS:
        raise BenchError("NO_SUCH_BOARD", f"There is no board {name!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[name]


def firmware_for(name: str, progress: Callable[[str], None]) -> Firmware | None:
    """Build (or find) the firmware image of an emulated board; None for a board that carries its own.

    Raises: BenchError when the toolchain is missing or the build fails.
    """
    if name not in ("qemu", "process"):
        return None
    _check_tools(kind(name))
    try:
        image = images.build("qemu" if name == "qemu" else "process", progress=progress)
    except images.ImageError as error:
        raise BenchError("NO_FIRMWARE", str(error)) from error
    return Firmware(Path(image.path), image.digest, image.micropython, image.built)


def _check_tools(wanted: Kind) -> None:
    missing = wanted.needs()
    if missing:
        raise BenchError("MISSING_TOOL", f"Board {wanted.name} needs {', '.join(missing)}.")


@dataclass(frozen=True)
class BoardRequest:
    """What the command line asks for: a kind, a serial URL, and the bench's address as the board sees it."""

    kind: str = "qemu"
    port_url: str | None = None
    host_address: str = "127.0.0.1"
    icount_shift: int | None = None


def make(request: BoardRequest, firmware: Firmware | None, name: str, workdir: Path) -> Board:
    """One board, switched off.

    Raises: BenchError when something the kind needs is missing.
    """
    chosen = kind(request.kind)
    if request.kind == "esp32":
        if request.port_url is None:
            raise BenchError("NO_PORT", f"Board esp32 needs {'; '.join(chosen.needs())}.")
        return esp32.Esp32Board(name, workdir, request.port_url, request.host_address)
    _check_tools(chosen)
    if firmware is None:
        raise BenchError(
            "NO_FIRMWARE", f"Board {request.kind} needs a firmware image: tableside firmware build."
        )
    if request.kind == "process":
        return process.ProcessBoard(name, workdir, firmware.path)
    return qemu.QemuBoard(name, workdir, firmware.path, qemu.Clock(request.icount_shift))
