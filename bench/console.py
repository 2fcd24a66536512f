"""The terminal's console: bytes in and out, a transcript, and the line protocol machines speak over it.

A line `!<n> {"do": ...}` is answered by exactly one line `=<n> {...}`; lines `@<name> {...}` are events; all
else is text for people. One Console lives as long as its board: every power-on attaches a new Wire to it, so
the transcript, and the events in it, run on over cuts and resets. Every wait has a deadline and ends at once
when the board goes away.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from bench.errors import ConsoleClosed, DeadlinePassed, RpcRefused

T = TypeVar("T")
Json = dict[str, Any]
DEFAULT_DEADLINE_S = 20.0
_TAIL_CHARS = 300
_MACHINE_LINE = re.compile(rb"^[>\s]*([=@])(\S+) (\{.*\})$")


class Wire(ABC):
    """A two-way byte stream to a board: a socket, a pty or a serial port."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor that becomes readable when the board speaks."""

    @abstractmethod
    def read(self) -> bytes:
        """What has arrived; b"" means the board is gone. Only called when the descriptor is readable."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the descriptor."""


class SocketWire(Wire):
    """A connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()


class FdWire(Wire):
    """A descriptor that is already open both ways, such as the master side of a pty."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        try:
            return os.read(self._fd, 65536)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class Event:
    """One `@name {...}` line: its place in the event list, when it came (monotonic) and its fields."""

    index: int
    at_s: float
    name: str
    data: Json


class Console:
    """Reads one board's console in a thread of its own; all methods may be called from any thread."""

    def __init__(self, name: str, log: Path | None = None) -> None:
        self.name = name
        self._log: IO[bytes] | None = log.open("ab", buffering=0) if log else None
        self._changed = threading.Condition()
        self._text = bytearray()
        self._cursor = 0
        self._line = bytearray()
        self._events: list[Event] = []
        self._answers: dict[str, Json] = {}
        self._serial = 0
        self._wire: Wire | None = None
        self._reader: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._sinks: list[Callable[[bytes], None]] = []

    # ------------------------------------------------------------------ life

    def attach(self, wire: Wire) -> None:
        """Begin to read a wire; what was attached before is let go."""
        self.detach()
        with self._changed:
            self._wire = wire
            self._line.clear()
            self._wake = socket.socketpair()
            self._reader = threading.Thread(
                target=self._pump, args=(wire, self._wake[1]), name=f"console-{self.name}", daemon=True
            )
        self._reader.start()

    def detach(self) -> None:
        """Stop reading and close the wire; the transcript stays."""
        with self._changed:
            reader, wake, self._reader, self._wake = self._reader, self._wake, None, None
        if reader is None or wake is None:
            return
        wake[0].close()
        reader.join()
        wake[1].close()

    def drain(self, deadline_s: float = 2.0) -> None:
        """Wait until a board that is gone has been read to its last byte, then let go of the wire."""
        reader = self._reader
        if reader is not None:
            reader.join(deadline_s)
        self.detach()

    def close(self) -> None:
        """Detach and close the log."""
        self.detach()
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def attached(self) -> bool:
        """True while a board is on the other end."""
        return self._wire is not None

    def tee(self, sink: Callable[[bytes], None]) -> None:
        """Also hand every chunk that arrives to `sink` (called in the reader's thread)."""
        self._sinks.append(sink)

    def _pump(self, wire: Wire, wake: socket.socket) -> None:
        try:
            while True:
                ready, _, _ = select.select([wire.fileno(), wake.fileno()], [], [])
                if wake.fileno() in ready:
                    return
                data = wire.read()
                if not data:
                    return
                self._take(data)
        finally:
            with self._changed:
                self._wire = None
                wire.close()
                self._changed.notify_all()

    def _take(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(data)
        for sink in self._sinks:
            sink(data)
        with self._changed:
            self._text += data
            self._line += data
            while (end := self._line.find(b"\n")) >= 0:
                self._take_line(bytes(self._line[:end]).rstrip(b"\r"))
                del self._line[: end + 1]
            self._changed.notify_all()

    def _take_line(self, line: bytes) -> None:
        match = _MACHINE_LINE.match(line)
        if match is None:
            return
        kind, name, body = match.groups()
        try:
            data = json.loads(body)
        except ValueError:
            return  # torn by a reset or a cut in the middle of a line: it stays in the transcript as text
        if kind == b"@":
            self._events.append(Event(len(self._events), time.monotonic(), name.decode(), data))
        else:
            self._answers[name.decode()] = data

    # ------------------------------------------------------------------ text

    @property
    def transcript(self) -> str:
        """Everything the board ever printed."""
        with self._changed:
            return self._text.decode(errors="replace")

    def write(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises: ConsoleClosed when no board is attached.
        """
        with self._changed:
            wire = self._wire
        if wire is None:
            raise ConsoleClosed(f"{self.name}: nothing is attached to this console (is the board on?)")
        try:
            wire.write(data)
        except OSError as error:
            raise ConsoleClosed(
                f"{self.name}: the console closed while writing ({error.strerror})"
            ) from error

    def line(self, text: str) -> None:
        """Send one line, as a person would type it."""
        self.write(text.encode() + b"\r")

    def forget(self) -> None:
        """Later `expect`s see only what comes from now on (a power-on does this)."""
        with self._changed:
            self._cursor = len(self._text)

    def expect(
        self, pattern: str | bytes, deadline_s: float = DEFAULT_DEADLINE_S, over_resets: bool = False
    ) -> re.Match[bytes]:
        """Wait for a regular expression in what was not yet expected before; moves past the match.

        With `over_resets` a board that is gone for a moment does not end the wait.
        Raises: DeadlinePassed, ConsoleClosed; both quote the end of the transcript.
        """
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)

        def seek() -> re.Match[bytes] | None:
            match = regex.search(bytes(self._text[self._cursor :]))
            if match is not None:
                self._cursor += match.end()
            return match

        return self._wait(seek, deadline_s, f"{regex.pattern!r} on the console", over_resets)

    # ------------------------------------------------------------------ the machine's lines

    def mark(self) -> int:
        """The index the next event will get: pass it as `since` to see only what follows."""
        with self._changed:
            return len(self._events)

    def events(self, name: str | None = None, since: int = 0) -> list[Event]:
        """The events so far, in order."""
        with self._changed:
            return [e for e in self._events[since:] if name in (None, e.name)]

    def event(
        self,
        name: str,
        *,
        since: int = 0,
        where: Callable[[Json], bool] = lambda data: True,
        deadline_s: float = DEFAULT_DEADLINE_S,
        over_resets: bool = False,
    ) -> Event:
        """Wait for the first event of that name from index `since` on for which `where` holds.

        With `over_resets` a board that is gone for a moment does not end the wait.
        Raises: DeadlinePassed, ConsoleClosed.
        """
        return self._wait(
            lambda: next((e for e in self._events[since:] if e.name == name and where(e.data)), None),
            deadline_s,
            f"the event @{name}",
            over_resets,
        )

    def rpc(self, do: str, *, deadline_s: float = DEFAULT_DEADLINE_S, **arguments: Any) -> Json:
        """Run one console command and return its answer.

        Raises: RpcRefused with the terminal's code; DeadlinePassed; ConsoleClosed.
        """
        number = self.post(do, **arguments)
        return self.answer(number, do, deadline_s=deadline_s)

    def post(self, do: str, **arguments: Any) -> str:
        """Send a command without waiting; returns the number to give to `answer`."""
        with self._changed:
            self._serial += 1
            number = str(self._serial)
        request = json.dumps({"do": do, **arguments}, separators=(",", ":"))
        self.write(f"!{number} {request}\n".encode())
        return number

    def answer(self, number: str, do: str, *, deadline_s: float = DEFAULT_DEADLINE_S) -> Json:
        """Wait for the answer of a command sent by `post`; raises like `rpc`."""
        data = self._wait(lambda: self._answers.pop(number, None), deadline_s, f"the answer to {do!r}")
        if not data.get("ok"):
            raise RpcRefused(do, str(data.get("error", "?")), str(data.get("text", "")))
        return data

    def _wait(
        self, seek: Callable[[], T | None], deadline_s: float, what: str, over_resets: bool = False
    ) -> T:
        end = time.monotonic() + deadline_s
        with self._changed:
            while True:
                found = seek()
                if found is not None:
                    return found
                if self._wire is None and not over_resets:
                    raise ConsoleClosed(
                        f"{self.name} went away while waiting for {what}; last seen: {self._tail()}"
                    )
                left = end - time.monotonic()
                if left <= 0:
                    raise DeadlinePassed(
                        f"{self.name}: no sign of {what} within {deadline_s:g} s; last seen: {self._tail()}"
                    )
                self._changed.wait(left)

    def _tail(self) -> str:
        return repr(bytes(self._text[-_TAIL_CHARS:]).decode(errors="replace"))
