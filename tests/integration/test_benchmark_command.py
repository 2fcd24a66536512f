"""`tableside bench benchmark`: every benchmark runs, judges, writes JSON; the figures mean nothing here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import build_parser, main
from bench.paths import ROOT


def run(tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    result = tmp_path / "result.json"
    status = main(["bench", "benchmark", *words, "--terminals", "2", "--json", str(result)])
    document = json.loads(result.read_text())
    assert document["schema"] == "tableside.benchmark/1"
    assert document["benchmark"] == words[0]
    assert status == (0 if document["outcome"] == "pass" else 1)
    return status, document


def figure(document: dict[str, Any], name: str) -> float:
    return float(next(one["value"] for one in document["figures"] if one["name"] == name))


def test_orders_measures_the_plain_server_and_ours_under_the_same_patterns(tmp_path: Path) -> None:
    _, document = run(
        tmp_path, "orders", "--seconds", "0.1", "--without", "postgres", "--without", "mosquitto"
    )
    seen = {(one["contender"], one["pattern"]) for one in document["observations"]}
    patterns = ("200/s", "saturated", "1000/s")
    assert seen == {(name, pattern) for name in ("plain+sqlite", "amqtt+sqlite") for pattern in patterns}
    assert all(one["answered"] == one["sent"] > 0 for one in document["observations"])
    assert figure(document, "amqtt+sqlite: orders without an answer") == 0


def test_soak_watches_memory_and_loses_no_order(tmp_path: Path) -> None:
    _, document = run(tmp_path, "soak", "--budget", "1")
    assert figure(document, "orders_unanswered") == 0
    assert figure(document, "rss_late_mb") > 10


def test_growth_measures_at_every_size(tmp_path: Path) -> None:
    _, document = run(tmp_path, "growth", "--sizes", "100,2000", "--seconds", "0.3")
    assert [one["stored"] for one in document["observations"]] == [100, 2000]
    assert document["observations"][1]["database_mb"] > document["observations"][0]["database_mb"]


def test_size_tells_what_an_order_takes(tmp_path: Path) -> None:
    _, document = run(tmp_path, "size", "--orders", "200")
    assert 200 < figure(document, "database_bytes_per_order") < 20_000


@pytest.mark.parametrize("words", [("growth", "--sizes", "10"), ("soak", "--budget", "soon")])
def test_a_wrong_option_is_explained(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "benchmark", *words])
    assert ended.value.code == 2
    assert "like" in capsys.readouterr().err


def test_every_command_of_the_benchmarks_document_is_one() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("tableside ")]
    assert len(commands) == 4
    for command in commands:
        assert callable(build_parser().parse_args(shlex.split(command)[1:]).run), command
