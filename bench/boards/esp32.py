"""A real ESP32 on a serial URL: /dev/ttyUSB0, socket://host:port or rfc2217://host:port.

Power is the reset line (RTS pulls EN low through the usual two-transistor circuit, DTR holds GPIO0 high), so
a "cut" here is a reset, not a loss of supply: cases that need the latter ask for the power-cut feature, which
this board does not declare. Not run in CI: it needs the chip.
"""

from __future__ import annotations

import time
from pathlib import Path

import serial  # type: ignore[import-untyped]

from bench.boards.base import Board, Link, Power
from bench.console import Console, Wire
from bench.errors import BenchError, DeadlinePassed

BAUD = 115200
_RESET_PULSE_S = 0.1  # EN needs some 10 ms low; the usual RC on devkits wants more
FEATURES: frozenset[str] = frozenset()


class SerialWire(Wire):
    """A pyserial port read at its descriptor: `in_waiting` of a socket:// URL counts only to one."""

    def __init__(self, port: serial.SerialBase) -> None:
        self._port = port
        self._port.timeout = 0.05

    def fileno(self) -> int:
        return int(self._port.fileno())

    def read(self) -> bytes:
        try:
            return bytes(self._port.read(max(1, int(self._port.in_waiting))))
        except (OSError, serial.SerialException):
            return b""

    def write(self, data: bytes) -> None:
        self._port.write(data)

    def close(self) -> None:
        self._port.close()


class SerialPower(Power):
    """On and off by the reset line."""

    def __init__(self, url: str, console: Console) -> None:
        self._url = url
        self._console = console
        self._port: serial.SerialBase | None = None

    @property
    def is_on(self) -> bool:
        return self._port is not None

    def on(self) -> None:
        try:
            port = serial.serial_for_url(self._url, BAUD, do_not_open=True)
            port.dtr = False
            port.rts = True  # held in reset until the console is attached
            port.open()
        except (OSError, ValueError, serial.SerialException) as error:
            raise BenchError(
                "NO_PORT",
                f"Cannot open {self._url}: {error}. Plug the board in, or name its port with --port URL.",
            ) from error
        self._port = port
        self._console.attach(SerialWire(port))
        time.sleep(_RESET_PULSE_S)  # the length of an electrical pulse, not a wait for an answer
        port.rts = False

    def off(self) -> None:
        if self._port is not None:
            self._port.rts = True
            self._console.detach()
            self._port = None

    def wait_off(self, deadline_s: float) -> int:
        raise DeadlinePassed("A board on a serial port cannot be seen going off.")


class LanLink(Link):
    """The board's own Wi-Fi: it reaches the bench under the address the user gives."""

    def __init__(self, host_address: str) -> None:
        self._host_address = host_address

    @property
    def host_address(self) -> str:
        return self._host_address


class Esp32Board(Board):
    """A chip that already carries the firmware (`tableside firmware flash`) and its provisioning record."""

    def __init__(self, name: str, workdir: Path, url: str, host_address: str) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        console = Console(name, workdir / f"{name}.console.log")
        super().__init__(
            name, "esp32", FEATURES, console, SerialPower(url, console), LanLink(host_address), flash=None
        )
