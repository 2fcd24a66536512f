"""The QEMU board: stock qemu-system-riscv32, machine virt, our MicroPython board, a NOR flash that is a file.

Console and QMP reach QEMU as open socket pairs, so both are attached before the first instruction runs, no
path or port is involved, and nothing is left behind.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench import children
from bench.boards.base import (
    BOOT_OPTIONS,
    CUT_AT,
    FLASH_IMAGE,
    INSTRET,
    LINK_SWITCH,
    POWER_CUT,
    RAW_REPL,
    Board,
    BootOptions,
    ImageFlash,
    Link,
    Power,
)
from bench.console import Console, SocketWire
from bench.errors import BenchError, DeadlinePassed

QEMU = "qemu-system-riscv32"
BANK_BYTES = 32 << 20  # the machine's second pflash bank: QEMU insists on the file having this size
EFUSE_ADDRESS = 0x80700000
EFUSE_MAGIC = b"TSEF"
FEATURES = frozenset({BOOT_OPTIONS, CUT_AT, FLASH_IMAGE, INSTRET, LINK_SWITCH, POWER_CUT, RAW_REPL})


@dataclass(frozen=True)
class Clock:
    """How guest time passes: with `icount_shift` N an instruction takes exactly 2^N ns of virtual time."""

    icount_shift: int | None = None

    def arguments(self) -> list[str]:
        """QEMU's command line for it."""
        return [] if self.icount_shift is None else ["-icount", f"shift={self.icount_shift}"]


def efuse(options: BootOptions) -> bytes:
    """Boot options as the blob the board reads at start: magic, big-endian length, JSON."""
    text = json.dumps(options).encode()
    return EFUSE_MAGIC + len(text).to_bytes(4, "big") + text


class Qmp:
    """The few words of QEMU's machine protocol the bench needs, over an open socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self._sock = sock
        self._file: IO[bytes] = sock.makefile("rb")
        self._file.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command; events in between are skipped.

        Raises: BenchError(QMP) when QEMU refuses or is gone.
        """
        try:
            self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while line := self._file.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise BenchError("QMP", f"QEMU refused {command}: {answer['error'].get('desc')}")
        except OSError as error:
            raise BenchError("QMP", f"QEMU did not answer {command}: {error}") from error
        raise BenchError("QMP", f"QEMU went away during {command}.")

    def close(self) -> None:
        """Let go of the socket."""
        self._file.close()
        self._sock.close()


class QemuPower(Power):
    """Starts and kills the emulator; a kill is a power cut: every program reaches the file at once."""

    def __init__(self, machine: QemuMachine, console: Console, options: Callable[[], BootOptions]) -> None:
        self._machine = machine
        self._console = console
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code = 0
        self.qmp: Qmp | None = None

    @property
    def is_on(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def on(self) -> None:
        if self.is_on:
            raise BenchError("ALREADY_ON", f"{self._console.name} is already on.")
        self.off()
        self._console.forget()
        self._machine.efuse.write_bytes(efuse(self._options()))
        ours, console_end = socket.socketpair()
        control, qmp_end = socket.socketpair()
        with console_end, qmp_end, self._machine.log.open("ab") as log:
            self._console.attach(SocketWire(ours))
            self._child = children.spawn(
                self._machine.command(console_end.fileno(), qmp_end.fileno()),
                stdout=log,
                stderr=log,
                pass_fds=[console_end.fileno(), qmp_end.fileno()],
            )
        try:
            self.qmp = Qmp(control)
        except (BenchError, OSError) as error:
            control.close()
            self.off()
            lines = self._machine.log.read_text(errors="replace").strip().splitlines()
            said = lines[-1] if lines else str(error)
            raise BenchError(
                "QEMU_DIED", f"QEMU did not start: {said} (whole output: {self._machine.log})"
            ) from error

    def off(self) -> None:
        if self._child is None:
            return
        self._exit_code = children.kill(self._child)
        self._child = None
        if self.qmp is not None:
            self.qmp.close()
            self.qmp = None
        self._console.drain()

    def wait_off(self, deadline_s: float) -> int:
        if self._child is not None:
            try:
                self._child.wait(deadline_s)
            except subprocess.TimeoutExpired:
                raise DeadlinePassed(f"{self._console.name} is still on after {deadline_s:g} s") from None
            self.off()
        return self._exit_code


class QemuMachine:
    """The launch line: which firmware, which flash, which clock."""

    def __init__(self, elf: Path, flash: Path, workdir: Path, name: str, clock: Clock) -> None:
        self.elf = elf
        self.flash = flash
        self.efuse = workdir / f"{name}.efuse"
        self.log = workdir / f"{name}.qemu.log"
        self.clock = clock
        self.extra: list[str] = []

    def command(self, console_fd: int, qmp_fd: int) -> list[str]:
        """The emulator's argv. The firmware goes in by the loader: -kernel with pflash leaves RAM empty."""
        devices = [
            "-device", f"loader,file={self.elf}",
            "-device", f"loader,file={self.efuse},addr={EFUSE_ADDRESS:#x},force-raw=on",
            "-drive", f"if=pflash,unit=1,format=raw,file={self.flash}",
            "-global", "virtio-mmio.force-legacy=false",
            "-netdev", "user,id=n0",
            "-device", "virtio-net-device,netdev=n0,id=nic0",
            "-device", "virtio-rng-device",
        ]  # fmt: skip
        channels = [
            "-chardev", f"socket,id=con,fd={console_fd}", "-serial", "chardev:con",
            "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
        ]  # fmt: skip
        base = [QEMU, "-machine", "virt", "-m", "32M", "-bios", "none", "-nodefaults", "-display", "none"]
        return [*base, *devices, *channels, *self.clock.arguments(), *self.extra]


class QemuLink(Link):
    """QEMU's user network: the bench's loopback is 10.0.2.2 inside."""

    def __init__(self, power: QemuPower) -> None:
        self._power = power

    @property
    def host_address(self) -> str:
        return "10.0.2.2"

    def up(self) -> None:
        self._set(True)

    def down(self) -> None:
        self._set(False)

    def _set(self, up: bool) -> None:
        if self._power.qmp is None:
            raise BenchError("BOARD_OFF", "The link of a board that is off cannot be switched.")
        self._power.qmp.execute("set_link", name="nic0", up=up)


class QemuBoard(Board):
    """One emulator on one flash bank file in `workdir`."""

    def __init__(self, name: str, workdir: Path, elf: Path, clock: Clock | None = None) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        console = Console(name, workdir / f"{name}.console.log")
        flash = ImageFlash(workdir / f"{name}.flash", BANK_BYTES)
        self.machine = QemuMachine(elf, flash.path, workdir, name, clock or Clock())
        power = QemuPower(self.machine, console, lambda: self.boot_options)
        super().__init__(name, "qemu", FEATURES, console, power, QemuLink(power), flash)
