"""The kill -9 campaign: a sample of it keeps every promise, and it sees a broken one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bench.history.events import Violation
from bench.kill.campaign import Campaign, Plan
from bench.kill.verdict import COUNTS, FAMILIES, Verdict
from bench.paths import ROOT

KEYS = [
    "schema", "kills", "orders", "confirmed", "lost", "doubled", "oversold", "double_booked", "cents_wrong",
    "replay",
]  # fmt: skip


def test_a_sample_of_kills_loses_doubles_and_miscounts_nothing(tmp_path: Path) -> None:
    result = tmp_path / "kill.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli.main", "bench", "kill", "--kills", "15", "--seed", "3",
         "--json", str(result)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert list(found) == KEYS
    assert found["schema"] == "tableside.kill/1"
    assert [found[name] for name in COUNTS] == [0] * len(COUNTS)
    assert found["kills"] >= 15
    assert found["orders"] > 20
    assert found["confirmed"] > found["orders"]
    assert found["replay"] == "tableside bench kill --kills 15 --seed 3"


def test_a_server_that_answers_before_the_commit_is_found_out(tmp_path: Path) -> None:
    plan = Plan(8, 5, planted=("reply_before_commit",), points=("commit",), random_share=0.0)
    with Campaign(plan, tmp_path, lambda text: None) as campaign:
        verdict = campaign.run()
    assert "LOST_CONFIRMED" in {violation.code for violation in verdict.violations}
    assert verdict.as_json()["lost"] > 0


def test_every_violation_there_is_counts_as_something() -> None:
    codes: set[str] = set()
    for path in [*(ROOT / "bench/history").glob("*.py"), *(ROOT / "bench/kill").glob("*.py")]:
        text = path.read_text()
        codes |= set(re.findall(r'(?:Violation|_differences)\(\s*"([A-Z_]+)"', text))
        codes |= set(re.findall(r'": "([A-Z_]+)"', text)) if path.name == "staff.py" else set()
    assert {"DOUBLE_BOOKED", "BOOKING", "TROUBLE", "LOST_CONFIRMED"} <= codes <= set(FAMILIES)
    found = Verdict(1, {}, 0, 0, [Violation(code, "") for code in sorted(codes)], "", 1.0).as_json()
    assert sum(found[name] for name in COUNTS) == len(codes)
