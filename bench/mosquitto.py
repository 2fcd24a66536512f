"""A mosquitto of one's own: in a folder of its own, on a free port, with the configuration we recommend.

The files come from `tableside server broker-config`, so whatever runs on this broker tests them too. Debian's
package may run a broker as a service; that one is never touched.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench import children
from bench.errors import BenchError
from server.brokerfiles import CONFIGURATION, SERVER_URL

PROGRAM = "/usr/sbin/mosquitto"
HOST = "127.0.0.1"
START_DEADLINE_S = 10.0
STOP_GRACE_S = 5.0
PORT_TRIES = 5

Admin = Callable[..., object]
"""Runs `tableside server WORDS...` on the state folder that is served: ``BenchServer.admin``."""


class PrivateMosquitto:
    """One broker for one server: it starts before the server and is told of every terminal registered.

    Raises: BenchError(MISSING_TOOL) without the Debian package, BenchError(MOSQUITTO) when it does not start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def server_option(self) -> str:
        """What `tableside server run --broker` is given."""
        return f"@{self.folder / SERVER_URL}"

    @property
    def pid(self) -> int:
        """Its process id. Raises: BenchError(MOSQUITTO) when it does not run."""
        if self._child is None:
            raise BenchError("MOSQUITTO", "mosquitto is not running.")
        return self._child.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._child is not None and self._child.poll() is None

    def configure(self, admin: Admin) -> None:
        """Write its files from the registry; a running broker reads them at once."""
        admin("broker-config", "--out", str(self.folder), "--listen", f"{HOST}:{self.port}")

    def start(self, admin: Admin) -> None:
        """Start it and wait until it listens; after a first start the port stays the same."""
        tries = 1 if self.port else PORT_TRIES
        for _ in range(tries):
            self.port = self.port or _free_port()
            self.configure(admin)
            with (self.folder / "mosquitto.log").open("ab") as log:
                self._child = children.spawn([PROGRAM, "-c", self.folder / CONFIGURATION], stderr=log)
            if self._listens(self._child):
                return
            self.kill()
            if tries > 1:
                self.port = 0  # somebody else was quicker
        words = (self.folder / "mosquitto.log").read_text(errors="replace").strip().splitlines()
        raise BenchError("MOSQUITTO", f"mosquitto did not start: {words[-1] if words else 'it said nothing'}")

    def stop(self) -> None:
        """Stop it in good order: it writes its sessions first."""
        if self._child is not None:
            children.stop(self._child, STOP_GRACE_S)
            self._child = None

    def kill(self) -> None:
        """kill -9: what it has not written is lost."""
        if self._child is not None:
            children.kill(self._child)
            self._child = None

    def _listens(self, child: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end and child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return True
            time.sleep(0.01)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
