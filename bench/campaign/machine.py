"""One terminal of the campaign: the process board on a flash file in memory, one life at a time.

The file holds the 2 MiB of the flash map and, behind it, the bundles its peer serves. One board process
stands ready and forks a life for each start (firmware/boards/process/serve.c). Nothing is shared between
machines, so each worker owns one.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.boards.flashmap import FLASH_BYTES
from bench.campaign.record import CONTROL_BYTES, Control, newest
from bench.campaign.trace import PAGE_BYTES, FlashState, Trace
from bench.errors import BenchError

RESET, WATCHDOG, CRASH = 121, 122, 123
RESETS = (RESET, WATCHDOG, CRASH)
HUNG = -1
_LIFE_S = 20.0
_EVENT = "@campaign "
_MEMORY = Path("/dev/shm")
_POWER_WAS_OFF = 1
_REQUEST = struct.Struct("=II")
_ANSWER_BYTES = 4

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

    `swap`: a frozen module that stands for another one (firmware/boards/process/frozen.c); `parent`: the
    folder to work in, where somebody else cleans up.
    """

    def __init__(self, binary: Path, served: bytes, parent: Path | None = None, swap: str = "") -> None:
        self._binary = binary
        self._swap = swap
        self._folder = working_folder(parent)
        folder = Path(self._folder.name)
        self.flash = folder / "flash"
        self._trace_path = folder / "trace"
        self._said = folder / "console"
        self.flash.write_bytes(b"\xff" * FLASH_BYTES + served)
        self._board: _Board | None = None
        self._base: bytes | None = None  # what the file holds, but for these pages
        self._dirty: set[int] = set()
        self._power_was_off = True

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *trouble: object) -> None:
        if self._board is not None:
            self._board.close()
        self._folder.cleanup()

    def load(self, image: bytes | bytearray) -> None:
        """Put this image into the flash, power off."""
        assert len(image) == FLASH_BYTES
        with self.flash.open("r+b") as file:
            file.write(image)
        self._base = None
        self.unplug()

    def load_state(self, state: FlashState) -> None:
        """Put this state into the flash, power off; writes what differs only."""
        if self._base is not state.base:
            self.load(state.data)
            self._base, self._dirty = state.base, set(state.pages)
            return
        flash = self._ready().flash
        for page in self._dirty - state.pages.keys():
            span = slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
            flash[span] = state.base[span]
        for page, content in state.pages.items():
            flash[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = content
        self._dirty = set(state.pages)
        self.unplug()

    def write(self, offset: int, data: bytes) -> None:
        """Write into the flash by cable, power off."""
        self._ready().flash[offset : offset + len(data)] = data
        self._dirty.update(range(offset // PAGE_BYTES, (offset + len(data) - 1) // PAGE_BYTES + 1))
        self.unplug()

    def unplug(self) -> None:
        """Take the power away: the reset memory goes."""
        self._power_was_off = True

    def image(self) -> bytes:
        """What the flash holds now."""
        with self.flash.open("rb") as file:
            return file.read(FLASH_BYTES)

    @property
    def cpu_s(self) -> float:
        """Seconds of computing by its board so far, all lives together (in ticks of the kernel's clock)."""
        return 0.0 if self._board is None else self._board.cpu_s

    def live(self, script: Script, options: Mapping[str, Any] | None = None) -> Life:
        """Start once and wait for the end. Raises: BenchError(BOARD_GONE)."""
        board = self._ready()
        code = board.live({"campaign": script, **(options or {})}, self._power_was_off)
        self._power_was_off = False
        console = board.console.take().decode(errors="replace")
        trace = Trace.parse(board.trace.take())
        self._dirty.update(step.page for step in trace.steps)
        record = newest(board.flash[:CONTROL_BYTES])
        return Life(code, tuple(events(console)), console, trace, record)

    def _ready(self) -> _Board:
        if self._board is None:
            self._board = _Board(self._binary, self.flash, self._said, self._trace_path, self._swap)
        return self._board


class _Output:
    """A file that the board appends to, read and emptied after each life."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def take(self) -> bytes:
        """What was appended since the last time."""
        size = os.fstat(self.descriptor).st_size
        found = os.pread(self.descriptor, size, 0)
        os.ftruncate(self.descriptor, 0)
        return found


class _Board:
    """The board process that forks lives, and the files it shares with this one."""

    def __init__(self, binary: Path, flash: Path, said: Path, trace: Path, swap: str) -> None:
        self.console, self.trace = _Output(said), _Output(trace)
        with flash.open("r+b") as file:
            self.flash = mmap.mmap(file.fileno(), 0)
        self._answers, told = os.pipe()
        self._child = subprocess.Popen(
            [binary],
            env={
                "TABLESIDE_FLASH": str(flash),
                "TABLESIDE_TRACE": str(trace),
                "TABLESIDE_SERVE": str(told),
                **({"TABLESIDE_SWAP": swap} if swap else {}),
            },
            stdin=subprocess.PIPE,
            stdout=self.console.descriptor,
            stderr=self.console.descriptor,
            pass_fds=(told,),
        )
        os.close(told)

    def live(self, options: Mapping[str, Any], power_was_off: bool) -> int:
        """One life -> its exit code, HUNG when it had to be killed. Raises: BenchError(BOARD_GONE)."""
        text = json.dumps(options).encode()
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # said below, with the board's last words
            self._child.stdin.write(_REQUEST.pack(_POWER_WAS_OFF * power_was_off, len(text)) + text)
            self._child.stdin.flush()
        life = self._answer()
        ready, _, _ = select.select([self._answers], [], [], _LIFE_S)
        if not ready:
            os.kill(life, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(self._answer())
        return code if ready else HUNG

    @property
    def cpu_s(self) -> float:
        """Its own seconds of computing and those of its lives, proc(5)."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it ended before it read everything
            self._child.stdin.close()
        self._child.kill()
        self._child.wait()
        for descriptor in (self._answers, self.console.descriptor, self.trace.descriptor):
            os.close(descriptor)
        self.flash.close()

    def _answer(self) -> int:
        raw = os.read(self._answers, _ANSWER_BYTES)
        if len(raw) != _ANSWER_BYTES:
            said = self.console.take().decode(errors="replace").strip()
            raise BenchError("BOARD_GONE", f"The process board ended by itself; it said: {said[-300:]!r}")
        return int.from_bytes(raw, "little", signed=True)


def working_folder(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where the system has that; it goes when its owner does."""
    if parent is None and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        parent = _MEMORY
    return tempfile.TemporaryDirectory(prefix="tableside-campaign-", dir=parent)


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
