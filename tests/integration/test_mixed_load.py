"""Several servers on one PostgreSQL database: no deadlock, the books balance; unsorted locks would show."""

from __future__ import annotations

import json

import pytest

from bench import mixed
from bench.cli.main import main
from server.ordering import together

SAMPLE_S = 4.0
PLANTED_S, PLANTED_TRIES = 2.0, 6


def test_everything_at_once_on_three_servers_has_no_deadlock_and_the_books_balance(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["bench", "mixed", "--budget", f"{SAMPLE_S:g}", "--seed", "7", "--json", "-"])
    result = json.loads(capsys.readouterr().out)
    assert (status, result["deadlocks"], result["failures"], result["violations"]) == (0, 0, {}, [])
    assert result["schema"] == "tableside.mixed/1"
    assert min(result["ops"], result["committed"], result["staff"], result["sent_twice"]) > 0
    assert result["menus"] > 0


def test_locks_that_are_not_sorted_end_in_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_locks = together._LOCK_TABLES
    monkeypatch.setattr(together, "_LOCK_TABLES", sorted_locks.replace("BY table_id", "BY random()"))
    assert sorted_locks != together._LOCK_TABLES
    for seed in range(PLANTED_TRIES):
        if mixed.run(PLANTED_S, seed=seed, orders_only=True).deadlocks:
            return
    raise AssertionError("unsorted locks went unnoticed")


def test_a_wrong_number_of_servers_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mixed", "--servers", "0"]) == 2
    assert "between 1 and" in capsys.readouterr().err
