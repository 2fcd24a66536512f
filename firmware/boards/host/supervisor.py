# What a service tells systemd: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3)).

import socket


class Supervisor:
    # environment: os.environ. Without NOTIFY_SOCKET nobody listens, and a program that hangs goes on hanging.

    def __init__(self, environment):
        self._path = environment.get("NOTIFY_SOCKET", "")
        self._socket = None
        if self._path:
            if self._path[0] == "@":  # an abstract address
                self._path = "\0" + self._path[1:]
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def is_there(self):
        return self._socket is not None

    def ready(self):
        self._send("READY=1")

    def watch(self, timeout_ms):
        # Kill this program if it is silent for so long.
        self._send("WATCHDOG_USEC=" + str(timeout_ms * 1000) + "\nWATCHDOG=1")

    def alive(self):
        self._send("WATCHDOG=1")

    def stopping(self):
        self._send("STOPPING=1")

    def _send(self, text):
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._path)
        except OSError as error:
            # It is busy, or restarts: the next one comes in a second, and silence is what it watches for.
            print("[board] systemd did not take a message:", error)
