"""The shoot-out's harness, on libraries written here: it tells whole releases from mixed ones."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import images
from bench.cli.main import main
from bench.errors import BenchError
from bench.shootout import fetch
from bench.shootout.judge import BROKEN, MIXED, NEW, OLD, Tally, fate
from bench.shootout.libraries import LIBRARIES, Library, Package
from bench.shootout.play import Device, play_library

BUDGET_S = 3.0
IN_PLACE = """
import urequests

def update(names):
    for name in names:
        text = urequests.get("http://server/" + name).text
        with open(name, "w") as file:
            file.write(text)
"""
WHOLE = """
import os
import urequests

def update(names):
    # Everything beside the old one, then main.py alone decides: it replaces itself last, in one rename.
    text = urequests.get("http://server/main.py").text
    with open("main.new", "w") as file:
        file.write(text)
    os.rename("main.new", "main.py")
"""


def served(version: int, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return {f"/{name}": content for name, content in files.items()}


def library(call: str, *, is_single: bool) -> Library:
    return Library(
        "local", (), "", "", f"import local\n{call}", served, lambda version, files: {}, is_single=is_single
    )


@pytest.fixture(scope="module")
def binary() -> Path:
    return images.build("process").path


def test_a_library_that_writes_in_place_leaves_mixed_releases(binary: Path) -> None:
    device = Device(
        library("local.update(FILES)\nmachine.reset()\n", is_single=False), {"local.py": IN_PLACE.encode()}
    )
    tally = play_library(binary, device, 1, BUDGET_S)
    assert tally.steps > 20
    assert tally.judged == sum(tally.fates.values()) >= 10
    assert tally.fates[MIXED] > 0
    assert tally.unhealed == 0
    assert tally.unsafe_percent > 0
    assert 0 < tally.link_unsafe < sum(tally.link.values())


def test_a_library_that_renames_one_file_leaves_whole_releases(binary: Path) -> None:
    device = Device(
        library("local.update(FILES)\nmachine.reset()\n", is_single=True), {"local.py": WHOLE.encode()}
    )
    tally = play_library(binary, device, 1, BUDGET_S)
    assert tally.judged >= 10
    assert (tally.fates[MIXED], tally.fates[BROKEN], tally.unhealed) == (0, 0, 0)
    assert tally.fates[OLD] > 0
    assert (tally.link[OLD], tally.link_unsafe) == (sum(tally.link.values()), 0)


def test_a_library_that_does_not_update_is_named(binary: Path) -> None:
    device = Device(library("raise OSError('no network')\n", is_single=True), {"local.py": b""})
    with pytest.raises(BenchError, match="local: no update"):
        play_library(binary, device, 1, BUDGET_S)


def test_a_start_is_judged_by_what_ran_and_by_every_byte() -> None:
    from hashlib import sha256

    old, new = {"main.py": b"1", "menu.py": b"11"}, {"main.py": b"2", "menu.py": b"22"}

    def hashes(files: Mapping[str, bytes]) -> dict[str, str | None]:
        return {name: sha256(data).hexdigest() for name, data in files.items()}

    assert fate([1, 1], hashes(old), old, new) == OLD
    assert fate([2, 2], hashes(new), old, new) == NEW
    assert fate([2, 1], hashes({**new, "menu.py": b"11"}), old, new) == MIXED
    assert fate([2, 2], {**hashes(new), "menu.py": None}, old, new) == MIXED
    assert fate(None, hashes(new), old, new) == BROKEN


def test_a_share_is_that_of_the_points_judged() -> None:
    tally = Tally("x")
    for seen, healed in ((OLD, NEW), (NEW, NEW), (MIXED, NEW), (BROKEN, BROKEN)):
        tally.add(seen, healed)
    assert (tally.unsafe_percent, tally.unhealed, tally.judged) == (50.0, 1, 4)


def test_a_package_that_cannot_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", offline)
    wanted = Library("x", (Package("x", "1", {"x.py": "x.py"}),), "", "", "", served, lambda v, f: {})
    with pytest.raises(BenchError, match="x 1 could not be had from the package index: ERROR: no network"):
        fetch.files_of(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_who_takes_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "shootout", "ota", "--only", "nobody"]) == 2
    said = capsys.readouterr().err
    assert all(library.name in said for library in LIBRARIES)
