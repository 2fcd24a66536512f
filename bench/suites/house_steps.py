"""Steps of the suites that look at a table as staff does: the HTTP API, the bill's evidence, telemetry."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.errors import check
from bench.provision import identity, public_spki
from bench.rig import Rig
from bench.wait import until
from server.storage.database import database_path

HTTP_DEADLINE_S = 20


def rows(rig: Rig, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a read-only look into the server's database finds."""
    path = database_path(rig.server.state)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, parameters).fetchall()


def open_seating(rig: Rig, table: str = "1") -> int | None:
    """The number of the open seating at a table."""
    found = rows(rig, "SELECT id FROM seating WHERE table_id = ? AND closed_at IS NULL", table)
    return int(found[0][0]) if found else None


class Staff:
    """A waiter with a token for the HTTP API."""

    def __init__(self, rig: Rig, name: str = "anna") -> None:
        self._token = json.loads(rig.server.admin("tokens", "add", name, "--role", "manager", "--json"))[
            "token"
        ]
        address = json.loads((rig.server.state / "server.json").read_text())["http"]
        self._base = f"http://{address['host']}:{address['port']}"
        until(self._is_known, "the server to know the new token")

    def _is_known(self) -> bool:
        request = urllib.request.Request(
            self._base + "/v1/tables", headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=HTTP_DEADLINE_S):
                return True
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            return False

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """A state-changing call; the answer's JSON. Raises: urllib.error.HTTPError."""
        request = urllib.request.Request(
            self._base + path,
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "Idempotency-Key": str(uuid.uuid4()),
            },
        )
        with urllib.request.urlopen(request, timeout=HTTP_DEADLINE_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


def evidence_holds(rig: Rig, bill: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a bill's evidence in a process of its own that has only the document and the public key."""
    document, key = folder / f"bill-{bill}.json", folder / "terminal.spki.der"
    document.write_text(rig.server.admin("evidence", str(bill)))
    key.write_bytes(public_spki(identity(1)))
    command = [sys.executable, "-m", "server", "check-evidence", str(document), "--key", str(key)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def telemetry_of(rig: Rig, device: str) -> tuple[Any, ...]:
    """The newest figures the server keeps of a terminal, once there are any."""
    sql = "SELECT uptime_s, heap_free_bytes, reconnects, resent, rssi FROM telemetry WHERE device = ?"
    until(lambda: bool(rows(rig, sql, device)), f"telemetry of {device}")
    return rows(rig, sql, device)[0]


def age_last_hello(rig: Rig, seconds: int) -> None:
    """Let the terminal's last Hello have been so much longer ago, as the server's own record of it says."""
    with closing(sqlite3.connect(database_path(rig.server.state), timeout=10)) as connection:
        changed = connection.execute(
            "UPDATE session SET rsa_at = rsa_at - ? WHERE device = 't-0001'", (seconds,)
        ).rowcount
        connection.commit()
    check(changed == 1, "the server has no session of the terminal")
