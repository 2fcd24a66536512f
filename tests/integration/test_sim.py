"""The deterministic simulation as a user runs it, and the planted bugs it has to find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench.mutants.campaign import Caught, campaign, control, soonest_runs, usual
from bench.mutants.catalogue import MUTANTS, Mutant
from bench.mutants.rewrite import Edit
from bench.paths import ROOT
from bench.sim.hot import hot_config
from bench.sim.run import SimConfig, simulate

GATE_S = 240.0  # of computing for each of two workers; a quiet machine needs about a sixth of it
FAULTS = (
    "drop", "duplicate", "delay", "reorder", "corrupt", "half_open", "reset", "amnesia", "server_kill",
    "server_kill_at_disk_step", "disk_full", "power_cut", "torn_page", "clock_jump",
)  # fmt: skip
DEEDS = (
    "orders", "changes", "cancels", "calls", "bill_requests", "bill_closes", "answers", "restocks", "menus",
    "suspensions", "seat", "transfer", "merge", "close", "bill", "split", "pay", "refund", "cook", "void",
    "book", "arrive", "unbook", "missed", "course", "fire", "shut", "reopen", "staff_refused",
)  # fmt: skip


def _source(module: str) -> str:
    root = ROOT / "firmware" if module.startswith("terminal") else ROOT
    return (root / (module.replace(".", "/") + ".py")).read_text()


def _command(arguments: list[str], folder: Path, hash_seed: str) -> dict[str, Any]:
    result = folder / f"result-{hash_seed}.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli.main", "sim", "run", *arguments, "--json", str(result)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tableside sim run --seed 11" in done.stdout
    document: dict[str, Any] = json.loads(result.read_text())
    return document


def test_one_seed_is_one_run_whatever_python_hashes(tmp_path: Path) -> None:
    arguments = ["--seed", "11", "--days", "0.004", "--terminals", "3", "--order-every", "5"]
    first = _command(arguments, tmp_path, "1")
    second = _command(arguments, tmp_path, "77")
    assert first["schema"] == "tableside.sim/1"
    assert first["seed"] == 11
    assert first["violations"] == []
    assert first["operations"]["orders"] > 100
    for part in ("digest", "operations", "faults"):
        assert first[part] == second[part]


def test_another_seed_is_another_run() -> None:
    runs = [simulate(SimConfig(seed=seed, duration_s=120, terminals=2)) for seed in (1, 2)]
    assert runs[0].digest != runs[1].digest


def test_a_run_of_ordinary_length_has_every_fault_and_everything_people_do() -> None:
    result = simulate(SimConfig(seed=5, duration_s=4320, terminals=3))
    assert result.violations == []
    assert {name for name in FAULTS if not result.faults.get(name)} == set()
    assert {name for name in DEEDS if not result.operations.get(name)} == set()


def test_every_promise_is_kept_while_everything_goes_wrong() -> None:
    faults: Counter[str] = Counter()
    for seed in (21, 22):
        result = simulate(hot_config(seed))
        assert result.violations == []
        assert result.operations["answers"] > 100
        faults.update(result.faults)
    for fault in ("server_kill", "power_cut", "drop", "duplicate", "delay", "corrupt", "half_open", "reset"):
        assert faults[fault] > 0, fault


def test_every_planted_bug_still_fits_its_source() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
    for mutant in MUTANTS:
        for edit in mutant.edits:
            assert edit.apply(_source(edit.module)) != _source(edit.module), mutant.name


def test_every_planted_bug_is_caught() -> None:
    results = list(campaign(MUTANTS, GATE_S))
    assert [result.name for result in results] == [mutant.name for mutant in MUTANTS]
    assert [result for result in results if not result.caught] == []


def test_a_bug_is_first_looked_for_where_it_was_seen_soonest() -> None:
    soonest = soonest_runs()
    assert set(soonest) <= {mutant.name for mutant in MUTANTS if not mutant.check}
    name = min(soonest)
    assert next(iter(usual(name))) == soonest[name]


def test_without_a_planted_bug_nothing_is_found() -> None:
    found: Caught = control(5.0)
    assert not found.caught, found.by


def test_a_bug_that_changes_nothing_survives_and_a_stale_one_is_named() -> None:
    harmless = Edit("server.transport.acl", "from __future__", "# changed\nfrom __future__")
    stale = Edit("server.transport.acl", "text that is not there", "")
    results = list(campaign([Mutant("harmless", "", (harmless,)), Mutant("stale", "", (stale,))], 12.0))
    assert [result.caught for result in results] == [False, False]
    assert "could not be planted" in results[1].by
