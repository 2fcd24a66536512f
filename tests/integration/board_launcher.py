"""A bare launcher for the two emulated boards: power, console, raw REPL. It knows nothing of the bench.

The board tests judge the C code below the bench's own board layer, so they must not depend on it.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FLASH_BYTES = 2 << 20
QEMU_BANK_BYTES = 32 << 20
OPTIONS_ADDRESS = 0x80700000
PROMPT = b">>> "


class ConsoleTimeout(Exception):
    """What was expected did not appear in time."""


class Launched:
    """A board that is running, with its console."""

    def __init__(self, process: subprocess.Popen[bytes], console_fd: int, started: float) -> None:
        self.process = process
        self.fd = console_fd
        self.started = started
        self.log = b""
        self._unread = b""

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def kill(self) -> None:
        """Cut the power from outside."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def send(self, data: bytes) -> None:
        """Write to the console."""
        os.write(self.fd, data)

    def _receive(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            raise ConsoleTimeout(self.log[-2000:].decode(errors="replace"))
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the last holder of the other end is gone
            data = b""
        self.log += data
        self._unread += data
        return bool(data)

    def until(self, pattern: bytes, timeout_s: float = 10.0) -> bytes:
        """Read up to and including ``pattern``."""
        deadline = time.monotonic() + timeout_s
        while pattern not in self._unread:
            if not self._receive(deadline):
                raise ConsoleTimeout("console closed: " + self.log[-2000:].decode(errors="replace"))
        end = self._unread.index(pattern) + len(pattern)
        text, self._unread = self._unread[:end], self._unread[end:]
        return text

    def enter_raw_repl(self) -> None:
        """Interrupt whatever runs and wait for the raw prompt."""
        self.send(b"\r\x03\x03\r\x01")
        self.until(b"raw REPL; CTRL-B to exit\r\n>")

    def start(self, code: str) -> None:
        """Run code without waiting for its end."""
        self.send(code.encode() + b"\x04")
        self.until(b"OK")

    def run(self, code: str, timeout_s: float = 10.0) -> str:
        """Run code in the raw REPL and return what it printed; an exception on the board fails the test."""
        self.start(code)
        printed = self.until(b"\x04", timeout_s)[:-1]
        error = self.until(b"\x04>", timeout_s)[:-2]
        assert not error, error.decode()
        return printed.decode().replace("\r\n", "\n").strip()

    def eval(self, expression: str) -> Any:
        """Evaluate an expression whose value JSON can carry."""
        return json.loads(self.run(f"import json\nprint(json.dumps({expression}))"))

    def exit_code(self, timeout_s: float = 10.0) -> int:
        """Wait for the emulator or process to end by itself."""
        deadline = time.monotonic() + timeout_s
        while self._receive(deadline):
            pass
        return self.process.wait(timeout_s)


class Qmp:
    """QEMU's machine protocol over its unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rwb", buffering=0)

    def __enter__(self) -> Qmp:
        self._lines.readline()
        self.ask("qmp_capabilities")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its answer."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]


class Bay:
    """A place with one flash image where a board can be started again and again."""

    def __init__(self, kind: str, image: Path, folder: Path) -> None:
        self.kind = kind
        self.image = image
        self.flash = folder / f"{kind}.flash"
        self.folder = folder
        with self.flash.open("wb") as out:
            out.write(b"\xff" * FLASH_BYTES)
            if kind == "qemu":
                out.truncate(QEMU_BANK_BYTES)

    def read_flash(self, offset: int, count: int) -> bytes:
        """Read the image file as the next boot would find it."""
        with self.flash.open("rb") as flash:
            flash.seek(offset)
            return flash.read(count)

    def power_on(self, *extra: str, entropy: bool = True, keep_reset_memory: bool = False) -> Launched:
        """Start the board; it stops at the prompt."""
        options = {"repl": True}
        if self.kind == "qemu":
            return self._start_qemu(options, entropy, extra)
        if not keep_reset_memory:
            self.flash.with_name(self.flash.name + ".rtc").unlink(missing_ok=True)
        return self._start_process(options)

    def boot(self, *extra: str, keep_reset_memory: bool = False) -> Launched:
        """Start the board and enter its raw REPL."""
        board = self.power_on(*extra, keep_reset_memory=keep_reset_memory)
        try:
            board.until(PROMPT)
            board.enter_raw_repl()
        except BaseException:
            board.__exit__(None, None, None)
            raise
        return board

    def _start_qemu(self, options: dict[str, Any], entropy: bool, extra: tuple[str, ...]) -> Launched:
        text = json.dumps(options).encode()
        blob = self.folder / "options.bin"
        blob.write_bytes(b"TSEF" + len(text).to_bytes(4, "big") + text)
        ours, theirs = socket.socketpair()
        command = [
            "qemu-system-riscv32",
            *("-machine", "virt", "-m", "32M", "-bios", "none", "-nodefaults"),
            *("-display", "none", "-monitor", "none"),
            *("-device", f"loader,file={self.image}"),
            *("-device", f"loader,file={blob},addr={OPTIONS_ADDRESS:#x},force-raw=on"),
            *("-drive", f"if=pflash,unit=1,format=raw,file={self.flash}"),
            *("-global", "virtio-mmio.force-legacy=false"),
            *("-netdev", "user,id=n0", "-device", "virtio-net-device,netdev=n0"),
            *(("-device", "virtio-rng-device") if entropy else ()),
            *("-chardev", f"socket,id=con,fd={theirs.fileno()}", "-serial", "chardev:con"),
            *extra,
        ]
        started = time.monotonic()
        process = _spawn(command, pass_fds=(theirs.fileno(),))
        theirs.close()
        return Launched(process, ours.detach(), started)

    def _start_process(self, options: dict[str, Any]) -> Launched:
        master, slave = pty.openpty()
        environment = {
            **os.environ,
            "TABLESIDE_FLASH": str(self.flash),
            "TABLESIDE_BOOT": json.dumps(options),
        }
        started = time.monotonic()
        command = ["setsid", "--ctty", str(self.image)]
        process = _spawn(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        return Launched(process, master, started)


def _spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], **options)
