"""The site a campaign kills: order server, database and broker, each started, looked into and killed here."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg

from bench import provision
from bench.errors import BenchError
from bench.kill.victim import Victim
from bench.mosquitto import PrivateMosquitto
from bench.postgres import PrivatePostgres
from server import cli
from server.storage.database import open_database

SITE = "demo"
DATABASES = ("sqlite", "postgresql")
BROKERS = ("amqtt", "mosquitto")
# Errors of a look at a database that is being recovered, or away.
AWAY = (sqlite3.Error, psycopg.Error)


class Site:
    """Everything that is not a terminal; use it from one thread, but for ``rows``, which any may call."""

    def __init__(
        self, folder: Path, database: str, broker: str, planted: Sequence[str], stack: ExitStack
    ) -> None:
        self.state = folder / "server"
        options = ["--beacon-interval", "2", "--limit-op", "500:1000", "--limit-http", "100000:1"]
        self._postgres: PrivatePostgres | None = None
        self._reader: psycopg.Connection[Any] | None = None
        self._reading = threading.Lock()
        if database == "postgresql":
            self._postgres = PrivatePostgres().open()
            stack.callback(self._postgres.close)
            stack.callback(self._close_reader)
            options += ["--database", self._postgres.url]
        self.victim = Victim(self.state, folder / "server.log", options, planted)
        stack.callback(self.victim.close)
        self._mosquitto: PrivateMosquitto | None = None
        self._first_start()
        if broker == "mosquitto":  # it is given its files from the registry that is there now
            self.victim.stop()
            self._mosquitto = PrivateMosquitto(folder / "mosquitto")
            stack.callback(self._mosquitto.kill)
            self._mosquitto.start(self.admin)
            self.victim.options += ["--broker", self._mosquitto.server_option]
            self._first_start()

    def _close_reader(self) -> None:
        with self._reading:
            if self._reader is not None:
                self._reader.close()

    def _first_start(self) -> None:
        if not self.victim.start():
            raise BenchError("SERVER_START", "The order server died at its first start; see its log.")

    @property
    def parts(self) -> list[str]:
        """What can be killed beside server and terminals."""
        return [
            name
            for name, part in (("database", self._postgres), ("broker", self._mosquitto))
            if part is not None
        ]

    @property
    def mqtt_port(self) -> int:
        """Where terminals connect."""
        return self._mosquitto.port if self._mosquitto is not None else self.victim.mqtt_port

    def register(self, boards: int, tables: Sequence[str]) -> str:
        """Enter terminals, further tables and a manager; returns the manager's token."""
        for number in range(1, boards + 1):
            who = provision.identity(number, SITE)
            key = self.state.with_name(f"{who.device}.spki.der")
            key.write_bytes(provision.public_spki(who))
            self.admin(
                "devices", "add", who.device, "--table", who.table, "--key", str(key),
                "--password", who.password,
            )  # fmt: skip
        with closing(open_database(self.state)) as database, database.admin() as connection:
            for table in tables:
                connection.exec_driver_sql(
                    f"INSERT INTO dining_table (site, table_id) VALUES ('{SITE}', '{table}')"
                )
        if self._mosquitto is not None:
            self._mosquitto.configure(self.admin)
        return str(json.loads(self.admin("tokens", "add", "anna", "--role", "manager", "--json"))["token"])

    def admin(self, *words: str) -> str:
        """What `tableside server WORDS...` prints. Raises: BenchError."""
        said = StringIO()
        with redirect_stdout(said):
            status = cli.main([*words, "--state", str(self.state)])
        if status:
            raise BenchError("ADMIN", f"server {' '.join(words[:2])} failed with status {status}.")
        return said.getvalue()

    def rows(self, sql: str) -> list[Any]:
        """What is committed now. Raises: one of AWAY."""
        if self._postgres is not None:
            with self._reading:
                if self._reader is None or self._reader.closed:
                    self._reader = psycopg.connect(self._postgres.url, connect_timeout=5, autocommit=True)
                return self._reader.execute(sql.encode()).fetchall()
        path = self.state / "tableside.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(sql).fetchall()

    def kill(self, part: str) -> None:
        """kill -9 of the database's or the broker's processes; they come back at once on what they kept."""
        if part == "database" and self._postgres is not None:
            self._postgres.kill()
            self._postgres.start()
        elif part == "broker" and self._mosquitto is not None:
            self._mosquitto.kill()
            self._mosquitto.start(self.admin)
