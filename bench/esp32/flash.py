"""Writes a build into a chip over a serial line, with esptool, and compares digests afterwards.

What a terminal has learned stays: identity, counters, journal and update record are not part of a build and
are left alone unless the whole flash is erased on request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import serial  # type: ignore[import-untyped]
from esp_pylib.logger import EspLog
from esptool import cmds  # type: ignore[import-untyped]
from esptool.logger import TemplateLogger, log  # type: ignore[import-untyped]
from esptool.util import FatalError  # type: ignore[import-untyped]

from bench.errors import BenchError
from bench.esp32.layout import TABLE_OFFSET, Chip, Layout, chip_named

Progress = Callable[[str], None]
Segment = tuple[str, int, bytes]  # name, byte offset in flash, content
_STEP_PERCENT = 25


@dataclass(frozen=True)
class Line:
    """How to reach the chip. `reset` is False where the chip was put in download mode by hand."""

    url: str
    baud: int = 115200
    reset: bool = True
    stub: bool = True  # esptool's helper in the chip's RAM: faster; the ROM alone can do it too

    @property
    def connect_mode(self) -> str:
        has_lines = self.reset and not self.url.startswith("socket://")
        return "default-reset" if has_lines else "no-reset"


class _Quiet(TemplateLogger):  # type: ignore[misc]
    """esptool's narration, reduced to the progress of writing and to its warnings."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._next_percent = 0
        self.name = ""

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: what matters is said by `flash`."""

    def note(self, message: str) -> None:
        """Nothing."""

    def warning(self, message: str) -> None:
        self._progress(f"esptool: {message}")

    def error(self, message: str) -> None:
        self._progress(f"esptool: {message}")

    def stage(self, finish: bool = False) -> None:
        """Nothing."""

    def set_verbosity(self, verbosity: str) -> None:
        """Nothing."""

    def begin(self, name: str) -> None:
        self.name, self._next_percent = name, _STEP_PERCENT

    def progress_bar(
        self, cur_iter: int, total_iters: int, prefix: str = "", suffix: str = "", bar_length: int = 30
    ) -> None:
        percent = 100 * cur_iter // max(1, total_iters)
        if percent >= self._next_percent:
            self._progress(f"{self.name}: {percent} %")
            self._next_percent = percent - percent % _STEP_PERCENT + _STEP_PERCENT


@contextmanager
def _narrated_by(quiet: _Quiet) -> Iterator[None]:
    previous = EspLog.instance
    log.set_logger(quiet)
    try:
        yield
    finally:
        EspLog.instance = previous


@contextmanager
def connected(line: Line, chip: Chip, progress: Progress) -> Iterator[Writer]:
    """The chip in download mode, found to be the right one; it restarts into its firmware at the end.

    Raises: BenchError (NO_PORT, NO_CHIP, WRONG_CHIP, OLD_CHIP, FLASH_FAILED).
    """
    quiet = _Quiet(progress)
    with _narrated_by(quiet):
        esp = _detect(line)
        try:
            _require(esp, chip, line)
            if line.stub:
                esp = cmds.run_stub(esp)
                if line.baud != esp.ESP_ROM_BAUD:
                    esp.change_baud(line.baud)
            cmds.attach_flash(esp)
            yield Writer(esp, quiet)
            cmds.reset_chip(esp, "hard-reset" if line.connect_mode == "default-reset" else "no-reset")
        except (FatalError, serial.SerialException, OSError) as error:
            if "revision" in str(error):
                raise BenchError("OLD_CHIP", f"{line.url}: {_first_line(error)}") from error
            raise BenchError(
                "FLASH_FAILED",
                f"{line.url}: {_first_line(error)} Check cable and supply, lower --baud, try again.",
            ) from error
        finally:
            esp._port.close()


class Writer:
    """What can be done to a connected chip."""

    def __init__(self, esp: Any, quiet: _Quiet) -> None:
        self._esp = esp
        self._quiet = quiet

    def write(self, segment: Segment, *, force: bool = False) -> None:
        """Write one segment and compare the chip's MD5 of it with ours.

        `force`: also where the image asks for a newer chip revision. Raises: BenchError(VERIFY_FAILED).
        """
        name, offset, data = segment
        self._quiet.begin(name)
        cmds.write_flash(self._esp, [(offset, data)], compress=True, force=force)
        if not self.holds(offset, data):
            raise BenchError(
                "VERIFY_FAILED",
                f"What the chip holds at {offset:#x} ({name}) is not what was written: flash again; if that "
                "does not help, the flash is worn out.",
            )

    def holds(self, offset: int, data: bytes) -> bool:
        """Whether the flash at this byte offset holds exactly these bytes (compared by MD5)."""
        digest = self._esp.flash_md5sum(offset, len(data))
        return bool(digest == hashlib.md5(data, usedforsecurity=False).hexdigest())

    def erase_all(self) -> None:
        """Erase the whole flash: identity, counters and journal too."""
        cmds.erase_flash(self._esp)


def flash(
    line: Line, chip: Chip, segments: Sequence[Segment], *, erase: bool, force: bool, progress: Progress
) -> int:
    """Write all segments, each verified; returns the bytes written.

    Raises: BenchError (NO_PORT, NO_CHIP, WRONG_CHIP, OLD_CHIP, FLASH_FAILED, VERIFY_FAILED).
    """
    with connected(line, chip, progress) as writer:
        if erase:
            progress("erasing the whole flash")
            writer.erase_all()
        for segment in segments:
            writer.write(segment, force=force)
    return sum(len(data) for _, _, data in segments)


def write_identity(line: Line, chip: Chip, layout: Layout, records: bytes, progress: Progress) -> None:
    """Write a provisioning record's copies into the identity partition of a chip with our partition table.

    Raises: BenchError (NO_TABLE, and those of `flash`).
    """
    partition = layout["identity"]
    with connected(line, chip, progress) as writer:
        if not writer.holds(TABLE_OFFSET, layout.binary):
            raise BenchError(
                "NO_TABLE",
                f"{line.url} does not carry Tableside's partition table: run tableside firmware flash first.",
            )
        writer.write(("identity", partition.offset, records.ljust(partition.size, b"\xff")))


def _detect(line: Line) -> Any:
    try:
        return cmds.detect_chip(line.url, connect_mode=line.connect_mode)
    except (serial.SerialException, OSError, ValueError) as error:
        raise _no_port(line, error) from error
    except FatalError as error:
        if "Could not open" in str(error) or "doesn't exist" in str(error):
            raise _no_port(line, error) from error
        raise BenchError(
            "NO_CHIP",
            f"No ESP32 answers on {line.url}: hold BOOT, tap EN (reset), and try again; is it a data cable?",
        ) from error


def _no_port(line: Line, error: Exception) -> BenchError:
    return BenchError(
        "NO_PORT",
        f"Cannot open {line.url}: {_first_line(error)} Plug the board in, close other programs that use the "
        "port, or name another with --port.",
    )


def _require(esp: Any, chip: Chip, line: Line) -> None:
    if chip_named(esp.CHIP_NAME) != chip:
        own = chip_named(esp.CHIP_NAME).name
        raise BenchError(
            "WRONG_CHIP",
            f"{line.url} is an {esp.CHIP_NAME}, the image is for {chip.name}: build one for {own}, or name "
            "another port. Nothing was written.",
        )


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if text.endswith(".") else f"{text}."
