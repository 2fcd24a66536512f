# The console's bytes: waiting for a typed line without stopping anybody, with echo and backspace for people.
#
# Lines that begin with "!" come from a machine and are not echoed.
import asyncio
import sys

from terminal.compat import const

_MAX_LINE = const(2048)
_BACKSPACE = b"\x08\x7f"

if sys.implementation.name == "micropython":
    import select
    from asyncio import core

    # One character at a time: more would block until all of them are there.
    class _Input:
        def __init__(self):
            self._stream = sys.stdin.buffer
            self._poll = select.poll()
            self._poll.register(sys.stdin, select.POLLIN)

        def wait(self):
            yield core._io_queue.queue_read(sys.stdin)

        # -> one byte, b"" at the end, None when nothing is there.
        def read(self):
            if not self._poll.poll(0):
                return None
            return self._stream.read(1)

else:
    import os

    class _Input:
        def __init__(self):
            self._loop = asyncio.get_running_loop()
            self._fd = sys.stdin.fileno()
            self._ready = asyncio.Event()
            self._data = b""

        async def wait(self):
            self._loop.add_reader(self._fd, self._ready.set)
            try:
                await self._ready.wait()
            finally:
                self._loop.remove_reader(self._fd)
            self._data = os.read(self._fd, 1024)

        def read(self):
            if not self._ready.is_set():
                return None
            byte, self._data = self._data[:1], self._data[1:]
            if not self._data:
                self._ready.clear()
            return byte


class LineReader:
    # echo(text): writes without a line end.
    def __init__(self, echo):
        self._echo = echo
        self._input = _Input()
        self._line = bytearray()
        self._after_return = False

    # The next line as str; None at the end of input. A line that is too long arrives cut.
    async def line(self):
        while True:
            byte = self._input.read()
            if byte is None:
                await self._input.wait()
                continue
            if not byte:
                return None
            finished = self._take(byte)
            if finished is not None:
                return finished

    def _take(self, byte):
        line = self._line
        code = byte[0]
        if code == 10 and self._after_return:  # the second half of CRLF
            self._after_return = False
            return None
        self._after_return = code == 13
        if code in (10, 13):
            if line[:1] != b"!":
                self._echo("\r\n")
            text = _decode(bytes(line))
            self._line = bytearray()
            return text
        if byte in _BACKSPACE:
            # UTF-8: the continuation bytes of a character go with it
            while line and line[-1] & 0xC0 == 0x80:
                self._line = line = line[:-1]
            if line:
                self._line = line[:-1]
                self._echo("\b \b")
        elif len(line) < _MAX_LINE and (code >= 32 or code == 9):
            line.append(code)
            if line[0] != 33:
                self._echo(byte)
        return None


def _decode(data):
    try:
        return data.decode()
    except UnicodeError:
        return "".join([chr(c) if c < 128 else "?" for c in data])
