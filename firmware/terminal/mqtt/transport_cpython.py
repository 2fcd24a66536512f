# A non-blocking TCP socket on CPython's asyncio, with the surface of transport_micropython.
import asyncio
import errno
import os
import socket


class Transport:
    # Starts the connection; await writable() finishes it. Raises OSError.
    def __init__(self, host, port):
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = self._sock.connect_ex((host, port))
        if result not in (0, errno.EINPROGRESS):
            self._sock.close()
            raise OSError(result, os.strerror(result))
        self._fd = self._sock.fileno()

    def readinto(self, buffer):
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data):
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return None

    async def readable(self):
        ready = self._loop.create_future()
        self._loop.add_reader(self._fd, _wake, ready)
        try:
            await ready
        finally:
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)

    async def writable(self):
        ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _wake, ready)
        try:
            await ready
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    # The descriptor's number may be another socket's soon after: let go of it here, not when a waiter wakes.
    def close(self):
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
        self._sock.close()


def _wake(ready):
    if not ready.done():
        ready.set_result(None)
