"""The simulated disk keeps what was synced through every power failure, and keeps nothing else for sure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sim.dbapi import Connections
from bench.sim.disk import Disk
from bench.sim.randomness import Seeded

SEEDS = range(30)


def _survivors(folder: Path, seed: int, synchronous: str) -> tuple[int, int]:
    """(rows whose commit returned, rows after the power failed somewhere in a write or sync)."""
    random = Seeded(seed, "disk")
    before = folder / f"before-{seed}"
    before.mkdir()
    disk = Disk(before)
    connect = Connections(disk.vfs_name)
    connection = connect(before / "a.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)")
    strike = disk.steps + random.draw.randrange(4, 120)

    def cut() -> None:
        if disk.steps >= strike:
            disk.freeze()

    disk.on_step = cut
    committed = 0
    while not disk.frozen:
        connection.execute("INSERT INTO t (filler) VALUES (?)", (random.random(700),))
        committed += not disk.frozen
    files = disk.survivors(random)
    connect.close()
    disk.close()
    after = folder / f"after-{seed}"
    after.mkdir()
    disk = Disk(after)
    disk.load(files)
    connect = Connections(disk.vfs_name)
    connection = connect(after / "a.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    made = connection.execute("SELECT COUNT(*) FROM sqlite_schema WHERE name = 't'").fetchone()[0]
    found = connection.execute("SELECT COUNT(*) FROM t").fetchone()[0] if made else 0
    connect.close()
    disk.close()
    return committed, int(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_synced_commit_survives_a_power_failure_at_any_step(tmp_path: Path, seed: int) -> None:
    committed, found = _survivors(tmp_path, seed, "FULL")
    assert found in (committed, committed + 1)  # the last one may have been on its way


def test_an_unsynced_commit_is_lost_by_some_power_failure(tmp_path: Path) -> None:
    outcomes = [_survivors(tmp_path, seed, "NORMAL") for seed in SEEDS]
    assert any(found < committed for committed, found in outcomes)


def test_a_full_disk_refuses_writes_and_recovers(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    connect = Connections(disk.vfs_name)
    connection = connect(tmp_path / "a.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (n)")
    disk.full = True
    with pytest.raises(Exception, match="full"):
        connection.execute("INSERT INTO t VALUES (1)")
    disk.full = False
    connection.execute("INSERT INTO t VALUES (2)")
    assert connection.execute("SELECT n FROM t").fetchall() == [(2,)]
    connect.close()
    disk.close()
