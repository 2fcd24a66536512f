# A non-blocking TCP socket on MicroPython's asyncio.
import errno
import socket
from asyncio import core

_NODELAY = getattr(socket, "TCP_NODELAY", 1)  # lwIP's constant is 0x40, Linux's is 1
_IPPROTO_TCP = 6


class Transport:
    # Starts the connection; await writable() finishes it. Raises OSError.
    # host: a numeric address, or a name where the port's resolver works (it blocks, so give a number).
    def __init__(self, host, port):
        info = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        self._sock = socket.socket(info[0], socket.SOCK_STREAM)
        self._sock.setblocking(False)
        # Before connect(): lwIP has no socket to set an option on once a connection was refused.
        self._sock.setsockopt(_IPPROTO_TCP, _NODELAY, 1)
        try:
            self._sock.connect(info[-1])
        except OSError as error:
            if error.errno != errno.EINPROGRESS:
                self._sock.close()
                raise
        self.readinto = self._sock.readinto  # -> bytes read, 0 at the end, None when there is nothing
        self.write = self._sock.write  # -> bytes taken, None when there is no room

    # MicroPython awaits a plain generator: one yield hands the task to the poller.
    def readable(self):
        yield core._io_queue.queue_read(self._sock)

    def writable(self):
        yield core._io_queue.queue_write(self._sock)

    def close(self):
        self._sock.close()
