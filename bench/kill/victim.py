"""The order server as something to be killed: its nursery, its ports that stay, its life and death."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import children
from bench.errors import BenchError
from bench.paths import ROOT

START_S = 60.0
_STOP_S = 20.0


class Victim:
    """One server on one state folder, over any number of lives, each with ``options`` as they are then.

    Use it from one thread.
    """

    def __init__(
        self, state: Path, log: Path, options: Sequence[str] = (), planted: Sequence[str] = ()
    ) -> None:
        self.state = state
        self.mqtt_port = 0
        self.http_port = 0
        self.lives = 0
        self.options = list(options)
        self._pid = 0
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        command = [sys.executable, "-m", "bench.kill.nursery", *planted]
        with log.open("ab") as file:
            self._nursery = children.spawn(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file
            )
        self._listener = threading.Thread(target=self._listen, name="nursery", daemon=True)
        self._listener.start()
        self._await("nursery")

    @property
    def alive(self) -> bool:
        """Whether the server lives, as far as the nursery has said."""
        return self._pid != 0

    def start(self, point: str = "", passes: int = 1) -> bool:
        """Start a life that ends at the n-th pass of a point. False when it ended before it was ready.

        Raises: BenchError when a server without such an end does not come up.
        """
        argv = ["run", "--state", str(self.state), "--mqtt", f"127.0.0.1:{self.mqtt_port}"]
        argv += ["--http", f"127.0.0.1:{self.http_port}", *self.options]
        wish = {"argv": argv, "point": point, "passes": passes}
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(wish).encode() + b"\n")
        self._nursery.stdin.flush()
        self._pid = int(self._await("born")["pid"])
        self.lives += 1
        said = self._await("ready", "dead")
        if said["event"] == "dead":
            self._dead(said)
            return False
        self.mqtt_port, self.http_port = int(said["mqtt"][1]), int(said["http"][1])
        return True

    def wait(self, within_s: float) -> bool:
        """Wait for a death; True when it came."""
        if self.alive:
            try:
                said = self._said.get(timeout=max(0.0, within_s))
            except queue.Empty:
                return False
            self._dead(said)
        return True

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.alive:
            os.kill(self._pid, signal.SIGKILL)  # the nursery has not reaped it: the number is still its own
            self._dead(self._await("dead"))

    def stop(self) -> None:
        """Ask it to end in good order. Raises: BenchError when it does not."""
        if self.alive:
            os.kill(self._pid, signal.SIGTERM)
            self._dead(self._await("dead", within_s=_STOP_S))

    def close(self) -> None:
        """End server and nursery, whatever state they are in."""
        if self.alive:
            with suppress(ProcessLookupError):  # it died by itself, and nobody had asked since
                os.kill(self._pid, signal.SIGKILL)
            self._pid = 0
        children.kill(self._nursery)
        self._listener.join()
        for stream in (self._nursery.stdin, self._nursery.stdout):
            if stream is not None:
                stream.close()

    def _dead(self, said: dict[str, Any]) -> None:
        self._pid = 0
        if said["event"] != "dead" or said["status"] not in (0, -signal.SIGKILL):
            raise BenchError("SERVER_START", f"The order server ended by itself ({said}); see its log.")

    def _await(self, *names: str, within_s: float = START_S) -> dict[str, Any]:
        try:
            said = self._said.get(timeout=within_s)
        except queue.Empty:
            raise BenchError(
                "SERVER_START", f"No sign of {' or '.join(names)} within {within_s:g} s; see the log."
            ) from None
        if said["event"] not in names:
            self._dead(said)
            return self._await(*names, within_s=within_s)
        return said

    def _listen(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            try:
                self._said.put(json.loads(line))
            except ValueError:
                continue  # a line that its killed writer did not finish
        self._said.put({"event": "dead", "status": "the nursery is gone"})
