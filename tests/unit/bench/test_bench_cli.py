"""The command line: help with examples everywhere, one sentence and the right exit code for bad input."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.main import build_parser, main


def leaves(
    parser: argparse.ArgumentParser, path: str = "tableside"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every parser of the tree with the words that lead to it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from leaves(child, f"{path} {name}")


def test_every_bench_command_shows_an_example_in_its_help() -> None:
    silent = [
        path
        for path, parser in leaves(build_parser())
        if "bench" in path and "example" not in parser.format_help()
    ]
    assert silent == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bench"],
        ["bench", "run", "--board", "toaster"],
        ["bench", "run", "--seed", "x"],
        ["bench", "report"],
        ["nonsense"],
    ],
)
def test_wrong_words_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bench", "run", "--suite", "singing"], "There is no suite 'singing'"),
        (["bench", "run", "--case", "no_such_case"], "No case is called 'no_such_case'"),
        (["bench", "run", "--json", "/nowhere/at/all.json"], "There is no folder /nowhere/at"),
        (
            ["bench", "run", "--board", "esp32", "--suite", "boot", "--case", "power_on_is_its_reset_cause"],
            "esp32",
        ),
        (["bench", "report", "/nowhere.json"], "Cannot read /nowhere.json"),
        (["bench", "list", "--suite", "x"], "There is no suite 'x'"),
    ],
)
def test_bad_input_is_one_sentence_and_no_pass(
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.rig.RUNS", tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err + captured.out
    assert "Traceback" not in captured.err + captured.out


def test_list_and_boards_are_also_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "boards", "--json"]) == 0
    assert {row["board"] for row in json.loads(capsys.readouterr().out)} == {"qemu", "process", "esp32"}
    assert main(["bench", "list", "--suite", "signing", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["promise"].endswith(".") for row in rows)


def test_a_report_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("not json", "[]", '{"schema": "x"}'):
        (tmp_path / "r.json").write_text(text)
        assert main(["bench", "report", str(tmp_path / "r.json")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
