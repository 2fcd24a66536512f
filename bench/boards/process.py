"""The process board: the unix port of the same firmware, its console behind a pty, its flash a file.

A supervisor thread plays the reset circuit: a reset, the watchdog and a crash end the process with a code of
their own, and it is launched again on the same flash. Any other exit leaves the board off.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from bench import children
from bench.boards.base import (
    BOOT_OPTIONS,
    CUT_AT,
    FLASH_IMAGE,
    POWER_CUT,
    RAW_REPL,
    Board,
    BootOptions,
    ImageFlash,
    Link,
    Power,
)
from bench.console import Console, FdWire
from bench.errors import BenchError, DeadlinePassed

EXIT_RESET, EXIT_WATCHDOG, EXIT_CRASH = 121, 122, 123
FEATURES = frozenset({BOOT_OPTIONS, CUT_AT, FLASH_IMAGE, POWER_CUT, RAW_REPL})
_RESETS = (EXIT_RESET, EXIT_WATCHDOG, EXIT_CRASH)


class ProcessPower(Power):
    """Starts, kills and relaunches the process; each launch has a pty of its own."""

    def __init__(
        self, binary: Path, flash: Path, console: Console, options: Callable[[], BootOptions]
    ) -> None:
        self._binary = binary
        self._flash = flash
        self._reset_memory = flash.with_name(flash.name + ".rtc")  # outlives resets, not power
        self._console = console
        self._options = options
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._supervisor: threading.Thread | None = None
        self._unplugged = threading.Event()
        self._started = threading.Event()
        self._failure: BenchError | None = None
        self._exit_code = 0

    @property
    def is_on(self) -> bool:
        return self._supervisor is not None and self._supervisor.is_alive()

    def on(self) -> None:
        if self.is_on:
            raise BenchError("ALREADY_ON", f"{self._console.name} is already on.")
        self._console.forget()
        self._unplugged.clear()
        self._started.clear()
        self._failure = None
        self._reset_memory.unlink(missing_ok=True)
        self._supervisor = threading.Thread(
            target=self._supervise, name=f"supervisor-{self._console.name}", daemon=True
        )
        self._supervisor.start()
        self._started.wait()
        if self._failure is not None:
            self.off()
            raise self._failure

    def off(self) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        with self._lock:
            self._unplugged.set()
            if self._child is not None:
                self._child.kill()
        supervisor.join()
        self._supervisor = None

    def wait_off(self, deadline_s: float) -> int:
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.join(deadline_s)
            if supervisor.is_alive():
                raise DeadlinePassed(f"{self._console.name} is still on after {deadline_s:g} s")
            self._supervisor = None
        return self._exit_code

    def _supervise(self) -> None:
        try:
            while (child := self._launch()) is not None:
                self._started.set()
                self._exit_code = child.wait()
                self._console.drain()
                if self._exit_code not in _RESETS:
                    return
        except BenchError as error:
            self._failure = error
        finally:
            self._child = None
            self._started.set()

    def _launch(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._unplugged.is_set():
                return None
            master, slave = pty.openpty()
            self._console.attach(FdWire(master))
            environment = {
                **os.environ,
                "TABLESIDE_FLASH": str(self._flash),
                "TABLESIDE_BOOT": json.dumps(self._options()),
            }
            try:
                self._child = children.spawn(
                    [self._binary],
                    env=environment,
                    stdin=slave,
                    stdout=slave,
                    stderr=slave,
                    own_terminal=True,
                )
            finally:
                os.close(slave)
            return self._child


class LocalLink(Link):
    """The board shares the bench's own loopback."""

    @property
    def host_address(self) -> str:
        return "127.0.0.1"


class ProcessBoard(Board):
    """One process on one flash file in `workdir`."""

    def __init__(self, name: str, workdir: Path, binary: Path) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        console = Console(name, workdir / f"{name}.console.log")
        flash = ImageFlash(workdir / f"{name}.flash")
        power = ProcessPower(binary, flash.path, console, lambda: self.boot_options)
        super().__init__(name, "process", FEATURES, console, power, LocalLink(), flash)
