"""A PostgreSQL of one's own: a fresh cluster in a temporary folder, gone without a trace afterwards.

    with PrivatePostgres() as url:
        ...  # postgresql://tableside:...@127.0.0.1:PORT/tableside

PostgreSQL refuses to run as root, so under root it runs as the Debian package's user `postgres`. It listens
on a free port of the loopback and asks for a password, like one that is not private. It dies with the thread
that made it, even by `kill -9`; what is left then is a folder.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psycopg

from bench import wait
from bench.children import kill
from bench.errors import BenchError, DeadlinePassed

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
SYSTEM_USER = "postgres"
NAME = "tableside"
START_S = 30.0
STOP_S = 30.0
PORT_TRIES = 5
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PrivatePostgres:
    """One cluster: started on entry (gives its URL), stopped and deleted on exit.

    `durable=False` switches fsync off: commits still survive `kill`, not a machine's end. `trust=True` lets
    everybody in without a password, which makes connecting faster. `settings` are lines of postgresql.conf.
    `parent` is where the folder is made (default: the system's temporary folder); under root, the user
    `postgres` must be able to get there.
    Raises: BenchError(MISSING_TOOL) without the Debian package, BenchError(POSTGRES) when it does not start.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        trust: bool = False,
        settings: Mapping[str, str] | None = None,
        parent: Path | None = None,
    ) -> None:
        self._settings = {**({} if durable else _NOT_DURABLE), **(settings or {})}
        self._auth = "trust" if trust else "scram-sha-256"
        self._parent = parent
        self._password = secrets.token_urlsafe(12)
        self._child: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.port = 0

    @property
    def url(self) -> str:
        """What a client connects to, password included."""
        return self.url_of(NAME)

    def url_of(self, database: str, password: str | None = None) -> str:
        """The URL of another database of this cluster, or one with another password."""
        return f"postgresql://{NAME}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> str:
        self.open()
        return self.url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> PrivatePostgres:
        """Make the cluster and start it."""
        if not (PROGRAMS / "postgres").is_file():
            raise BenchError("MISSING_TOOL", f"{PROGRAMS}/postgres is not installed: run ci/setup.")
        self.folder = Path(tempfile.mkdtemp(prefix="tableside-pg-", dir=self._parent))
        try:
            self._give_away(self.folder)
            self._make_cluster()
            self.start()
            self.make_database(NAME)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop it and delete its folder; safe to call twice."""
        self.kill()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server on the cluster's files and wait until it answers (after `kill`: recovered)."""
        for attempt in range(PORT_TRIES):
            if self.port == 0 or attempt:
                self.port = _free_port()
            self._child = self._spawn()
            try:
                wait.until(self._answers_or_ended, "PostgreSQL answers", START_S, every_s=0.02)
            except DeadlinePassed as error:
                self.kill()
                raise BenchError("POSTGRES", f"PostgreSQL did not answer: {self.log_tail()}") from error
            if self._child.poll() is None:
                return
            if "Address already in use" not in self.log_tail():
                break
        raise BenchError("POSTGRES", f"PostgreSQL did not start: {self.log_tail()}")

    def stop(self) -> None:
        """Shut down in order: sessions are cut, committed work is written out (`pg_ctl stop -m fast`)."""
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """kill -9 of every process of the cluster, as if its machine had stopped; the files stay."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGSTOP)  # it starts nobody new while its children are killed
            backends = _descendants(self._child.pid)
            for pid in backends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kill(self._child)
            # Whoever still holds the shared memory keeps the next start from it.
            wait.until(lambda: not any(map(_runs, backends)), "every backend is gone", STOP_S, every_s=0.005)
        self._child = None

    def make_database(self, name: str, template: str = "template1") -> str:
        """Make one more empty database (or a copy of `template`) and return its URL."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Delete a database whoever is connected to it."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def cut_sessions(self, database: str = NAME) -> int:
        """End every session of a database from the server's side, and say how many there were."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            ).fetchall()
        return len(rows)

    def log_tail(self, characters: int = 500) -> str:
        """The end of the server's log."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace")[-characters:] if path.exists() else "it wrote no log"

    def _give_away(self, path: Path) -> None:
        if os.geteuid() == 0:
            user = _system_user()
            os.chown(path, user.pw_uid, user.pw_gid)

    def _make_cluster(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password)
        self._give_away(secret)
        command: list[str | Path] = [
            *_as_system_user(), PROGRAMS / "initdb", "--pgdata", self.folder / "data", "--username", NAME,
            "--pwfile", secret, "--auth", self._auth, "--encoding", "UTF8", "--locale", "C.UTF-8",
            "--no-sync",
        ]  # fmt: skip
        made = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        secret.unlink()
        if made.returncode:
            raise BenchError("POSTGRES", f"initdb failed: {made.stderr.strip()[-500:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "60",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # The leash is set after the change of user, which would undo it.
        command: list[str | Path] = [
            *_as_system_user(),
            "setpriv",
            "--pdeathsig",
            "QUIT",
            "--",
            PROGRAMS / "postgres",
        ]
        command += ["-D", self.folder / "data", *options]
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers_or_ended(self) -> bool:
        if self._child is None or self._child.poll() is not None:
            return True
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise BenchError("MISSING_TOOL", f"there is no user {SYSTEM_USER!r}: run ci/setup.") from None


def _as_system_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    user = _system_user()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _descendants(parent: int) -> list[int]:
    """Processes below `parent`: PostgreSQL's backends, each in a session of its own."""
    found = []
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for word in children.read_text().split():
                found += [int(word), *_descendants(int(word))]
    return found
