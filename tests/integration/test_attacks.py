"""The attacks suite as a user runs it, on the process board; on the QEMU board it is a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.paths import ROOT
from bench.suites import attacks

DEADLINE_S = 300.0


def test_every_attack_on_updates_fails_on_the_process_board(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    words = [
        "bench",
        "run",
        "--board",
        "process",
        "--suite",
        "attacks",
        "--seed",
        "11",
        "--json",
        str(result),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli.main", *words],
        cwd=ROOT,
        env={**os.environ, "TABLESIDE_BUILD": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(result.read_text())["suites"][0]["cases"]
    assert {case["name"] for case in cases if case["outcome"] == "pass"} == {
        case.name for case in attacks.SUITE.cases
    }
