"""Terminals that send the same sealed ops over HTTP, for the plain server of the comparison.

Connections are kept alive and shared; a request waits for a free one, and its wait counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from bench.benchmarks.load_client import SoftTerminal
from server.wire.keyschedule import SessionKeys

Answer = Callable[[bytes], None]


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request in flight."""

    def __init__(self, free: Callable[[_Connection], None]) -> None:
        self._free = free
        self._buffer = b""
        self._answer: Answer | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        self.transport = cast(asyncio.Transport, transport)

    def post(self, path: str, body: bytes, answer: Answer) -> None:
        """Send one request."""
        assert self.transport is not None
        self._answer = answer
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/cose\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived; the response is complete when its Content-Length is there."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        if len(rest) < length:
            return
        self._buffer = b""
        answer, self._answer = self._answer, None
        if answer is not None and head.startswith(b"HTTP/1.1 200"):
            answer(rest[:length])
        self._free(self)


class HttpPool:
    """At most ``size`` requests in flight, each on a connection of its own; the others wait their turn."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._size = size
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []
        self._queue: deque[tuple[str, bytes, Answer]] = deque()

    async def open(self) -> None:
        """Connect. Raises: OSError."""
        loop = asyncio.get_running_loop()
        for _ in range(self._size):
            _, made = await loop.create_connection(lambda: _Connection(self._freed), "127.0.0.1", self._port)
            self._all.append(made)
            self._idle.append(made)

    def close(self) -> None:
        """Drop all connections."""
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.abort()

    def post(self, path: str, body: bytes, answer: Answer) -> None:
        """Send now or when a connection is free."""
        if self._idle:
            self._idle.pop().post(path, body, answer)
        else:
            self._queue.append((path, body, answer))

    def _freed(self, connection: _Connection) -> None:
        if self._queue:
            connection.post(*self._queue.popleft())
        else:
            self._idle.append(connection)


class HttpTerminal(SoftTerminal):
    """A terminal whose session was given to it, and whose ops travel over a pool."""

    pool: HttpPool

    def join(self, pool: HttpPool, sid: bytes, keys: SessionKeys, menu_version: int) -> None:
        """Take part with a ready session."""
        self.pool = pool
        self.take_session(sid, keys, menu_version)

    def publish_op(self, frame: bytes) -> None:
        """Send an op-frame as a request."""
        self.pool.post(f"/orders/{self.device}", frame, self.take_reply)
