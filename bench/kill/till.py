"""Staff at the HTTP API, over every kill: one call after the other, each seen through under its key."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import staff
from bench.history.events import Acted
from bench.kill.site import AWAY
from bench.sim.randomness import Seeded

CALL_S = 10.0
AGAIN_S = 0.05
PAUSE_S = (0.01, 0.2)
_NOT_YET = (401, 429, 503)  # the token is not read yet; too often; the queue is full or the disk is


class Till:
    """One person with a token, in a thread of its own until ``stop``."""

    def __init__(
        self,
        seed: int,
        token: str,
        port: Callable[[], int],
        read: staff.Read,
        tables: Sequence[str],
        counted: Sequence[int],
    ) -> None:
        self.acted: list[Acted] = []
        self.troubles: list[str] = []
        self.repeated = 0
        self._draw = Seeded(seed, "till").draw
        self._staff = staff.Staff(self._draw, 2_000_000_000, counted)
        self._staff.weights = {**self._staff.weights, "stock": 8}
        self._token, self._port, self._read, self._tables = token, port, read, tables
        self._connection: http.client.HTTPConnection | None = None
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="till", daemon=True)
        self._number = 0

    def begin(self) -> None:
        """Open the till."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; what was begun is seen through, for which the server must be up."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def abandon(self) -> None:
        """Nobody will start the server again: give up what is not answered."""
        self._abandoned.set()
        self.stop()

    def act(self, action: staff.Action) -> None:
        """Do one thing, however often it has to be asked for."""
        self._number += 1
        key, at_s = f"till-{self._number}", time.monotonic()
        while (answer := self._call(action, key)) is None:
            if self._abandoned.wait(AGAIN_S):
                return
        self.acted.append(self._acted(action, at_s, *answer))

    def _run(self) -> None:
        while not self._stopping.wait(self._draw.uniform(*PAUSE_S)):
            try:
                seen = staff.look(self._read, self._tables)
            except AWAY:
                continue  # it is being recovered
            action = self._staff.decide(seen)
            if action is not None:
                self.act(action)
        if self._connection is not None:
            self._connection.close()

    def _call(self, action: staff.Action, key: str) -> tuple[int, dict[str, Any]] | None:
        """Status and body of one attempt, None where it has to be repeated."""
        method, path, body = staff.call(action)
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        }
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=CALL_S)
            self._connection.request(method, path, json.dumps(body), headers)
            answer = self._connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return None
        self.repeated += answer.getheader("Idempotency-Replayed") is not None
        return None if answer.status in _NOT_YET else (answer.status, said)

    def _acted(self, action: staff.Action, at_s: float, status: int, said: dict[str, Any]) -> Acted:
        done_s = time.monotonic()
        if status < 300:
            return Acted(at_s, done_s, action.kind, action.args, lsn=int(said["lsn"]), result=said)
        if status not in (404, 409, 422):
            self.troubles.append(f"{action} was answered with {status}: {said}")
        return Acted(at_s, done_s, action.kind, action.args, code=str(said.get("code", status)))
