"""Power cuts in firmware updates, on MicroPython: a sample of the campaign, and the bugs it has to catch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from esp32_images import C3, published

from bench.campaign import images
from bench.cli.main import main
from bench.esp32 import appimage
from bench.mutants import image as mutants

APP_AT = 0x10000  # of an application in a published image
SEGMENT_BYTES = 8000


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Releases of real MicroPython bytes, few enough to be interrupted often; what a partition needs."""
    folder = tmp_path_factory.mktemp("images")
    image = appimage.parse(published(C3)[APP_AT:], C3)
    return folder, images.write_images(appimage.excerpt(image, SEGMENT_BYTES), folder)


@pytest.mark.parametrize(
    ("rollback", "updates"), [(True, ("new", "bad")), (False, ("first",))], ids=["rollback", "no rollback"]
)
def test_an_image_update_survives_power_cuts(
    real: tuple[Path, int], rollback: bool, updates: tuple[str, ...]
) -> None:
    plan = images.Plan(stride=25, second=1, updates=updates, rollback=rollback)
    result = images.finish(images.start(*real, plan))
    assert result["failed"] == []
    assert result["complete"]
    assert result["states"] > 100
    assert result["second_cuts"] > 0


CI_BUGS = (
    "confirmed on record before the bootloader knows",
    "otadata not read back after confirming",
    "reports the release it should run",
    "older choice of the slot taken for the new one",
)


@pytest.mark.parametrize("name", CI_BUGS)
def test_a_planted_bug_is_caught(real: tuple[Path, int], name: str) -> None:
    (bug,) = [bug for bug in mutants.BUGS if bug.name == name]
    row = mutants.find(bug, *real)
    assert row["caught"]
    assert "undisturbed" not in row["by"], "only an interruption or a silent failure shows it"


def test_every_bug_of_the_image_layer_still_fits_its_source() -> None:
    for bug in mutants.BUGS:
        assert bug.source() != (images.FIRMWARE / "terminal" / bug.file).read_text()


def test_the_command_plays_the_image_layer(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert main(["bench", "campaign", "--layer", "image", "--budget", "2s", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["schema"] == images.SCHEMA
    assert result["failures"] == 0
    assert result["states"] > 0
