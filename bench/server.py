"""The order server as a child process: start, kill, restart on the same state and port, administer.

The bench uses the server exactly as an operator does: `tableside server ...` and the read-only ledger.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from bench import children, provision
from bench.boards.base import Identity
from bench.errors import BenchError
from bench.mosquitto import PrivateMosquitto
from bench.paths import ROOT
from server import cli
from server.cli_guard import EXIT_INTERRUPTED
from server.storage.ledger import Ledger

START_DEADLINE_S = 30.0
_STOP_GRACE_S = 10.0


class BenchServer:
    """One server on one state directory; its MQTT port stays the same over restarts.

    With ``broker`` terminals talk to that one; it lives from the first ``start`` to ``stop``, over kills.
    """

    def __init__(
        self,
        state: Path,
        log: Path,
        site: str = "demo",
        options: Sequence[str] = (),
        *,
        broker: PrivateMosquitto | None = None,
    ) -> None:
        self.state = state
        self.site = site
        self.host = "127.0.0.1"
        self.port = 0
        self._options = list(options)
        self._log = log
        self.broker = broker
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises: BenchError(SERVER_DOWN).
        """
        if self._child is None or not self.running:
            raise BenchError("SERVER_DOWN", "The order server is not running.")
        return self._child.pid

    @property
    def ledger(self) -> Ledger:
        """What the server has committed (read-only)."""
        return Ledger(self.state)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises: BenchError(SERVER_START) with the server's own last words.
        """
        if self.running:
            return
        argv = [sys.executable, "-m", "server", "run", "--state", str(self.state), "--site", self.site]
        argv += ["--mqtt", f"{self.host}:{self.port}", "--ready-json", *self._options]
        if self.broker is not None:
            if not self.broker.running:
                self.broker.start(self.admin)
            argv += ["--broker", self.broker.server_option]
        with self._log.open("ab") as log:
            self._child = children.spawn(
                argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, env=_environment()
            )
        try:
            ready = self._await_ready(self._child)
        except BenchError:
            self.kill()
            raise
        self.port = int(ready["mqtt"]["port"])

    def stop(self) -> int:
        """Stop it as an operator would, and its broker after it; returns its exit status."""
        status = self._end(lambda child: children.stop(child, _STOP_GRACE_S))
        if self.broker is not None:
            self.broker.stop()
        return status

    def kill(self) -> None:
        """kill -9: no goodbye, no flush."""
        self._end(children.kill)

    def restart(self) -> None:
        """kill -9 and start again on the same state and port."""
        self.kill()
        self.start()

    @contextmanager
    def restarted_with(self, *options: str) -> Iterator[None]:
        """Run it with further options for a while; afterwards it runs as before."""
        usual = self._options
        self._options = [*usual, *options]
        self.restart()
        try:
            yield
        finally:
            self._options = usual
            self.restart()

    def log_text(self) -> str:
        """Everything it has written to stderr."""
        return self._log.read_text(errors="replace")

    def admin(self, *words: str) -> str:
        """What `tableside server WORDS... --state DIR` does, without a new process; returns its output.

        Raises: BenchError(ADMIN) with the command's own sentence.
        """
        output, complaints = StringIO(), StringIO()
        with redirect_stdout(output), redirect_stderr(complaints):
            try:
                status = cli.main([*words, "--state", str(self.state)])
            except SystemExit as error:  # argparse
                status = 2 if error.code else 0
        if status == EXIT_INTERRUPTED:
            raise KeyboardInterrupt  # the Ctrl-C was meant for the bench
        if status:
            said = complaints.getvalue().strip().splitlines()
            raise BenchError("ADMIN", f"server {' '.join(words[:2])} failed: {said[-1] if said else status}")
        return output.getvalue()

    def register(self, who: Identity) -> None:
        """Put a terminal into the registry, active at its table."""
        key = self.state.with_name(f"{who.device}.spki.der")
        key.write_bytes(provision.public_spki(who))
        self.admin(
            "devices", "add", who.device, "--table", who.table, "--key", str(key), "--password", who.password
        )
        self.tell_broker()

    def tell_broker(self) -> None:
        """An external broker learns who may log in now; the embedded one looks for itself."""
        if self.broker is not None:
            self.broker.configure(self.admin)

    def cpu_seconds(self) -> float:
        """Processor time the server has used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _end(self, how: Any) -> int:
        if self._child is None:
            return 0
        status = int(how(self._child))
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child = None
        return status

    def _await_ready(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert child.stdout is not None
        end = time.monotonic() + START_DEADLINE_S
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                data = os.read(child.stdout.fileno(), 65536)
                if not data:
                    break
                pending += data
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    message = _json_or_none(line)
                    if message is not None and message.get("event") == "ready":
                        return message
        raise BenchError(
            "SERVER_START", f"The order server did not start: {self._last_words()} (log: {self._log})"
        )

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _json_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
