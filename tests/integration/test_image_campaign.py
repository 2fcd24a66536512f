"""Power cuts in firmware updates, on MicroPython: a sample of the campaign, and the bugs it has to catch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from esp32_images import C3, published

from bench import provision
from bench.boards import catalogue
from bench.boards.base import ImageFlash
from bench.campaign import image_plan, images, lines
from bench.campaign.image_player import FIRMWARE, ImagePlayer, Releases, write_releases
from bench.campaign.plan import Task
from bench.campaign.run import Tally
from bench.cli.campaign_image import boot_option
from bench.cli.main import main
from bench.errors import BenchError
from bench.esp32 import appimage
from bench.mutants import image as mutants

APP_AT = 0x10000  # of an application in a published image
SEGMENT_BYTES = 8000
KEYS = [
    "schema", "states", "cuts", "torn", "second_cuts", "link_cuts", "server_kills", "content_faults",
    "bit_rot", "failures", "states_per_s", "board", "seed",
]  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Releases of real MicroPython bytes, few enough to be interrupted often."""
    image = appimage.parse(published(C3)[APP_AT:], C3)
    return write_releases(appimage.excerpt(image, SEGMENT_BYTES), tmp_path_factory.mktemp("images"))


def played(releases: Releases, tasks: list[Task], workers: int, firmware: Path = FIRMWARE) -> Tally:
    with images.crew(releases, workers, firmware) as crew:
        return images.campaign(crew, images.blank_tally(crew, 1), tasks)


@pytest.fixture(scope="module")
def tasks(real: Releases) -> list[Task]:
    with ImagePlayer(real) as player:
        return image_plan.tasks(player.goldens(), 1, 2)


def sample(tasks: list[Task], of_a_kind: int) -> list[Task]:
    """The first tasks of every update and kind of fault."""
    kinds: dict[str, list[Task]] = {}
    for task in tasks:
        line = task.line
        kind = f"{line.golden} {line.faults[-1].kind} {line.faults[-1].name} {line.is_torn} {task.seconds}"
        kinds.setdefault(kind, []).append(task)
    return [task for found in kinds.values() for task in found[:of_a_kind]]


def test_an_image_update_survives_a_sample_of_every_fault(real: Releases, tasks: list[Task]) -> None:
    result = played(real, sample(tasks, 8), 2)
    assert result.failures == []
    assert result.is_complete
    counted = result.to_json() | result.details()
    for name in ("cuts", "torn", "second_cuts", "bit_rot", "chip_faults"):
        assert counted[name] > 0, name
    assert counted["states"] > 150


def test_the_number_of_workers_changes_no_state(real: Releases, tasks: list[Task]) -> None:
    few = [task for task in tasks if task.seconds][:6] + tasks[20:40]
    alone, together = (played(real, few, workers) for workers in (1, 2))
    for one in (alone, together):
        one.seconds = one.cpu_s = 0.0
    assert alone.hashes == together.hashes
    assert alone.to_json() | alone.details() == together.to_json() | together.details()


def test_the_same_seed_plans_the_same_campaign(real: Releases, tasks: list[Task]) -> None:
    with ImagePlayer(real) as player:
        goldens = player.goldens()
    assert image_plan.tasks(goldens, 1, 2) == tasks
    assert image_plan.tasks(goldens, 2, 2) != tasks


def test_every_line_names_its_state_for_good(real: Releases, tasks: list[Task]) -> None:
    with ImagePlayer(real) as player:
        for task in sample(tasks, 1):
            assert lines.parse(str(task.line)) == task.line
        first = next(task.line for task in tasks if task.seconds)
        verdict = player.play(first, sizes=True)
        second = image_plan.second_cuts(verdict, 1, 1)[0]
        right_behind = player.play(second)
        player.play(lines.parse("bad cut=3"))
        assert player.play(second).hash == right_behind.hash, "made anew, from its line alone"


@pytest.mark.parametrize(
    "text", ["old cut=1", "new cut=99999", "new chip=blind", "new link=3", "new rot=99999999"]
)
def test_a_line_that_fits_no_state_is_refused_with_a_sentence(real: Releases, text: str) -> None:
    with ImagePlayer(real) as player, pytest.raises(BenchError) as refused:
        player.play(lines.parse(text))
    assert refused.value.code == "BAD_LINE"
    assert refused.value.text.startswith(text)


def test_an_exported_state_is_started_by_a_process_board(real: Releases, tmp_path: Path) -> None:
    firmware = catalogue.firmware_for("process", lambda text: None)
    who = provision.identity(1)
    with ImagePlayer(real) as player:
        steps = len(player.goldens()["new"])
        for number, cut in enumerate((0, steps // 2, steps - 12, steps)):
            line = lines.parse(f"new cut={cut}")
            file = tmp_path / f"{cut}.img"
            player.export(line, file)
            request = catalogue.BoardRequest("process")
            board = catalogue.make(request, firmware, f"board-{number}", tmp_path)
            try:
                assert isinstance(board.flash, ImageFlash)
                board.flash.path.write_bytes(file.read_bytes())
                board.boot_options.update(boot_option(real, line))
                provision.provision(board, who, provision.Endpoint("127.0.0.1", 9))
                board.power.on()
                boot = board.console.event("boot", deadline_s=30, over_resets=True)
                assert boot.data["device"] == who.device
                runs = "starts ota_0" if cut == steps else "starts ota_1"
                assert runs in board.console.transcript
            finally:
                board.close()


# ---------------------------------------------------------------- planted bugs


def bug_named(name: str) -> mutants.Bug:
    return next(bug for bug in mutants.BUGS if bug.name == name)


CI_BUGS = (
    "confirmed on record before the bootloader knows",
    "otadata not read back after confirming",
    "reports the release it should run",
    "older choice of the slot taken for the new one",
)


@pytest.mark.parametrize("name", CI_BUGS)
def test_a_planted_bug_is_caught(real: Releases, name: str) -> None:
    row = mutants.find(bug_named(name), real)
    assert row["caught"]
    assert "undisturbed" not in row["by"], "only an interruption or a silent failure shows it"


def test_the_line_of_a_failure_replays_to_the_same_failure(real: Releases, tasks: list[Task]) -> None:
    with mutants.planted(bug_named("reports the release it should run")) as firmware:
        with images.crew(real, 2, firmware) as crew:
            order = image_plan.near(crew.goldens(), 1, 0)
            tally = images.campaign(crew, images.blank_tally(crew, 1), order, stop_at=1)
        failed = tally.failed[0]
        with ImagePlayer(real, firmware) as player:
            again = player.play(lines.parse(str(failed.line)))
    assert again.failures == failed.failures
    with ImagePlayer(real) as player:
        assert player.play(failed.line).failures == (), "the honest firmware survives the same state"


def test_every_bug_of_the_image_layer_still_fits_its_source() -> None:
    for bug in mutants.BUGS:
        assert bug.source() != (FIRMWARE / "terminal" / bug.file).read_text()


# ---------------------------------------------------------------- the command


def test_the_command_writes_the_same_keys_as_for_applications(tmp_path: Path) -> None:
    file, details = tmp_path / "result.json", tmp_path / "details.json"
    command = ["bench", "campaign", "--layer", "image", "--budget", "2s", "--seed", "1", "--json", str(file)]
    assert main([*command, "--details", str(details)]) == 0
    result = json.loads(file.read_text())
    assert list(result) == KEYS
    assert (result["schema"], result["failures"], result["seed"]) == ("tableside.campaign/1", 0, 1)
    assert result["states"] > 0
    assert json.loads(details.read_text())["golden"]["new"] > 100


def test_a_line_is_replayed_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = ["bench", "campaign", "--layer", "image"]
    assert main([*campaign, "--replay", "new chip=weak-page"]) == 0
    said = capsys.readouterr().out
    assert "bad-bytes" in said
    assert "new chip=weak-page: 3 starts, 0 failures" in said
    file = tmp_path / "chip.img"
    assert main([*campaign, "--export", "first-norollback cut=40", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"{file.stat().st_size} bytes" in said
    assert '"rollback": false' in said
    assert main([*campaign, "--export", "new cut=1", str(tmp_path / "nowhere" / "chip.img")]) == 2


def test_an_interrupted_campaign_writes_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench.cli.main", "bench", "campaign", "--layer", "image", "--json"]
    with subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert "first states" in running.stdout.readline()
        assert "0 failures" in running.stdout.readline(), "one state was played"
        running.send_signal(signal.SIGINT)
        said = running.stdout.read()
    assert running.returncode == 130
    assert "interrupted" in said
    assert list(json.loads(file.read_text())) == KEYS
