"""Promises of a private PostgreSQL: what was committed outlives a kill, and nothing outlives its owner."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from bench import postgres
from bench.errors import BenchError
from bench.postgres import PrivatePostgres
from bench.wait import until


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_was_committed_outlives_a_kill_and_a_folder_does_not_outlive_its_owner() -> None:
    server = PrivatePostgres(durable=False)
    with server as url:
        folder = server.folder
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept (x INT)")
            connection.execute("INSERT INTO kept VALUES (1)")
            connection.commit()
            connection.execute("INSERT INTO kept VALUES (2)")
            backend = connection.info.backend_pid
            server.kill()
            assert not _runs(backend)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.start()
        with psycopg.connect(url) as again:
            assert again.execute("SELECT x FROM kept").fetchall() == [(1,)]
        copied = server.make_database("copied", template="tableside")
        copy = psycopg.connect(copied)
        assert copy.execute("SELECT x FROM kept").fetchall() == [(1,)]
        assert server.cut_sessions("copied") == 1
        with pytest.raises(psycopg.OperationalError):
            copy.execute("SELECT 1")
        copy.close()
        server.drop_database("copied")
        server.stop()
    assert not folder.exists()


def test_a_killed_owner_leaves_no_server_running() -> None:
    owner = subprocess.Popen(
        [
            sys.executable, "-c",
            "from bench.postgres import PrivatePostgres\n"
            "server = PrivatePostgres(durable=False)\n"
            "with server as url:\n"
            "    pid = (server.folder / 'data/postmaster.pid').read_text().split()[0]\n"
            "    print(server.folder, pid, flush=True)\n"
            "    input()\n",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    folder, pid = owner.stdout.readline().split()
    assert _runs(int(pid))
    owner.kill()
    owner.communicate()
    until(lambda: not _runs(int(pid)), "the server is gone")
    shutil.rmtree(folder)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres, "PROGRAMS", tmp_path)
    with pytest.raises(BenchError, match="ci/setup") as refused:
        PrivatePostgres().open()
    assert refused.value.code == "MISSING_TOOL"
