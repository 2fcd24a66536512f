"""One terminal of the campaign: the process board on a flash file in memory, one life at a time.

The file holds the 2 MiB of the flash map and, behind it, the bundles its peer serves. Nothing is shared
between machines, so each worker owns one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.boards.flashmap import FLASH_BYTES
from bench.campaign.record import Control, newest
from bench.campaign.trace import Trace

RESET, WATCHDOG, CRASH = 121, 122, 123
RESETS = (RESET, WATCHDOG, CRASH)
HUNG = -1
_LIFE_S = 20.0
_EVENT = "@campaign "
_MEMORY = Path("/dev/shm")

Script = Mapping[str, Any]


@dataclass(frozen=True)
class Life:
    """One start of the terminal: how it ended, what it told, what it did to the flash.

    `exit_code`: 0 power off, 121.. resets, HUNG if it had to be killed. `record`: the control record it left,
    if `is_last`; where resets happen inside an emulator, that of the last life after them.
    """

    exit_code: int
    events: tuple[Mapping[str, Any], ...]
    console: str
    trace: Trace
    record: Control | None
    is_last: bool = True

    def first(self, name: str) -> Mapping[str, Any] | None:
        """The first event that has this field."""
        return next((event for event in self.events if name in event), None)

    def all(self, name: str) -> list[Any]:
        """That field of every event that has it."""
        return [event[name] for event in self.events if name in event]


class Machine:
    """Boots flash images. `served`: the bytes behind the flash map. A context manager.

    `parent`: the folder to work in, where somebody else cleans up.
    """

    def __init__(self, binary: Path, served: bytes, parent: Path | None = None) -> None:
        self._binary = binary
        self._folder = working_folder(parent)
        folder = Path(self._folder.name)
        self.flash = folder / "flash"
        self._reset_memory = folder / "flash.rtc"
        self._trace = folder / "trace"
        self._said = folder / "console"
        self.flash.write_bytes(b"\xff" * FLASH_BYTES + served)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *trouble: object) -> None:
        self._folder.cleanup()

    def load(self, image: bytes | bytearray) -> None:
        """Put this image into the flash, power off."""
        assert len(image) == FLASH_BYTES
        with self.flash.open("r+b") as file:
            file.write(image)
        self.unplug()

    def unplug(self) -> None:
        """Take the power away: the reset memory goes."""
        self._reset_memory.unlink(missing_ok=True)

    def image(self) -> bytes:
        """What the flash holds now."""
        with self.flash.open("rb") as file:
            return file.read(FLASH_BYTES)

    def live(self, script: Script, options: Mapping[str, Any] | None = None) -> Life:
        """Start once and wait for the end."""
        self._trace.unlink(missing_ok=True)
        environment = {
            "TABLESIDE_FLASH": str(self.flash),
            "TABLESIDE_TRACE": str(self._trace),
            "TABLESIDE_BOOT": json.dumps({"campaign": script, **(options or {})}),
        }
        with self._said.open("wb") as out:
            child = subprocess.Popen(
                [self._binary],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                close_fds=False,
            )
        code = _wait(child)
        console = self._said.read_text(errors="replace")
        raw = self._trace.read_bytes() if self._trace.exists() else b""
        return Life(code, tuple(events(console)), console, Trace.parse(raw), newest(self._control()))

    def _control(self) -> bytes:
        with self.flash.open("rb") as file:
            return file.read(0x2000)


def working_folder(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where the system has that; it goes when its owner does."""
    if parent is None and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        parent = _MEMORY
    return tempfile.TemporaryDirectory(prefix="tableside-campaign-", dir=parent)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the end without waking up in between -> its exit code, HUNG when it had to be killed."""
    ending = os.pidfd_open(child.pid)
    try:
        ready, _, _ = select.select([ending], [], [], _LIFE_S)
    finally:
        os.close(ending)
    if not ready:
        child.kill()
    code = child.wait()
    return code if ready else HUNG


def events(console: str) -> list[Mapping[str, Any]]:
    """What a console says to the bench."""
    found: list[Mapping[str, Any]] = []
    for line in console.splitlines():
        if line.startswith(_EVENT):
            try:
                found.append(json.loads(line[len(_EVENT) :]))
            except ValueError:
                continue  # the power failed while it was written
    return found
