"""What the documents say about files, commands, cases and sizes is true."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from bench.cli.main import build_parser
from bench.mutants import attacks as weakened
from bench.paths import FIXTURES, ROOT
from bench.suites import attacks, signing

PROTOCOL = ROOT / "docs" / "protocol.md"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").rglob("*.md"),
]


def threat_rows() -> list[tuple[str, str]]:
    """Threat and case of every row of the protocol's threat table."""
    section = PROTOCOL.read_text(encoding="utf-8").split("## 10. Threats")[1].split("## 11.")[0]
    return re.findall(r"^\| (.+?) \| .+ \| `([a-z_]+)` \|$", section, re.MULTILINE)


def test_every_threat_of_the_protocol_is_a_case_of_the_signing_suite() -> None:
    rows = threat_rows()
    assert len(rows) >= 30
    cases = {case.name for case in signing.SUITE.cases}
    missing = [name for _, name in rows if name not in cases]
    assert missing == []


def test_every_attack_on_updates_is_a_case_of_the_attacks_suite_and_the_other_way_round() -> None:
    section = (ROOT / "docs" / "ota.md").read_text(encoding="utf-8").split("## Attacks")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z -]+): .+ \| .+ \| `([a-z_]+)` \|$", section, re.MULTILINE)
    assert sorted(case for _, case in rows) == sorted(case.name for case in attacks.SUITE.cases)
    assert {kind for kind, _ in rows} == {
        "arbitrary software", "rollback", "freeze", "mix-and-match", "endless data", "slow retrieval",
        "wrong target", "wrong precursor", "change after verify", "key compromise", "key rotation",
        "online server owned",
    }  # fmt: skip


def test_every_case_of_the_attacks_suite_stands_for_a_defence_that_was_once_taken_away() -> None:
    for weak in weakened.MUTANTS:
        assert weak.source(), weak.name
    assert {weak.where for weak in weakened.MUTANTS} == {case.name for case in attacks.SUITE.cases}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_into_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_every_command_of_the_readme_is_one() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.partition("#")[0].strip() for line in text.splitlines() if line.startswith("tableside ")]
    assert len(commands) >= 8
    for command in commands:
        assert callable(build_parser().parse_args(shlex.split(command)[1:]).run), command


def test_the_sizes_in_the_protocol_are_those_of_the_vectors() -> None:
    vectors = json.loads((FIXTURES / "protocol" / "vectors.json").read_text(encoding="utf-8"))
    text = PROTOCOL.read_text(encoding="utf-8")
    for packet in vectors["packets"]:
        assert re.search(rf"^\| {packet['lines']}\b[^|]*\| {packet['publish_bytes']} \|", text, re.MULTILINE)
    size = {frame["name"]: f"{frame['size']:,}" for frame in vectors["frames"]}
    said = (
        f"A committed reply is {size['reply-committed']} bytes, a Hello {size['hello']}, an Accept "
        f"{size['accept']}, a beacon {size['beacon']}, the 76-item demo menu {size['menu']}."
    )
    assert said in " ".join(text.split())


def test_decisions_are_numbered_without_gaps_and_have_their_three_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        for part in ("## Context", "## Decision", "## Consequences"):
            assert part in text, path.name
