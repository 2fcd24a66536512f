"""The power-cut campaign for firmware images: `tableside bench campaign --layer image`.

firmware/boards/process/image_cuts.py plays it, on MicroPython, against the model of a chip's bootloader in
firmware/boards/process/partitions.py; this module makes the images and shares the states among
processes. What the oracles are is said there.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import children, images
from bench.campaign.signer import fixture
from bench.errors import BenchError
from bench.esp32 import appimage
from bench.paths import ROOT
from server.releases.bundle import Target, build_bundle, certify
from server.releases.rules import IMAGE_PATH

SCHEMA = "tableside.campaign.image/1"
FIRMWARE = ROOT / "firmware"
PLAYER = "boards/process/image_cuts.py"
CHIP_ID = 5  # an ESP32-C3
HARDWARE = "esp32c3-image"
SECTOR_BYTES = 4096
UPDATES = ("new", "first", "bad")
_SEGMENT_BYTES = 18_000
_RELEASES = ("cable", "old", "new", "bad")
_HEAP = "heapsize=128m"
_SPARE_BYTES = 2 * SECTOR_BYTES


@dataclass(frozen=True)
class Plan:
    """How much to play: every `stride`-th step, `second` second cuts in every eighth recovery."""

    stride: int = 1
    first: int = 0
    second: int = 4
    stop_at: int = 10
    updates: Sequence[str] = UPDATES
    special: bool = True
    rollback: bool = True
    budget_s: float | None = None


def write_images(image: appimage.AppImage, folder: Path) -> int:
    """Write four builds of an image as signed releases -> bytes an app partition needs for them.

    Raises: Refusal for an image no server would sign.
    """
    key = fixture("release")
    certificate = certify(fixture("root"), key.spki)
    size = 0
    for number, name in enumerate(_RELEASES):
        data = appimage.variant(image, number).encode()
        target = Target(HARDWARE, number + 1, floor=1)
        made = build_bundle({IMAGE_PATH: data}, target, key, certificate, SECTOR_BYTES)
        (folder / f"{name}.offer").write_bytes(made.offer.encode())
        (folder / f"{name}.bin").write_bytes(data)
        size = max(size, len(data))
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES + _SPARE_BYTES


def start(folder: Path, apps_bytes: int, plan: Plan, firmware: Path = FIRMWARE) -> subprocess.Popen[bytes]:
    """Begin to play a plan on the images in `folder`; `finish` has the result."""
    job: dict[str, Any] = {name: str(folder / name) for name in _RELEASES}
    job |= {
        "apps_bytes": apps_bytes,
        "chip_id": CHIP_ID,
        "rollback": plan.rollback,
        "updates": list(plan.updates),
        "special": plan.special,
        "budget_s": plan.budget_s,
        "plan": {name: getattr(plan, name) for name in ("stride", "first", "second", "stop_at")},
    }
    file = folder / f"job-{plan.first}-{plan.stride}-{plan.rollback}.json"
    file.write_text(json.dumps(job))
    command = [str(_interpreter()), "-X", _HEAP, str(firmware / PLAYER), str(firmware), str(file)]
    return children.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a player -> its result. Raises: BenchError(NO_RESULT) with what it said last."""
    said = child.communicate()[0].decode(errors="replace")
    lines = said.strip().splitlines() or ["nothing"]
    if child.returncode == 0:
        return dict(json.loads(lines[-1]))
    raise BenchError("NO_RESULT", f"Not even the undisturbed update works: {lines[-1]}")


def campaign(
    image: appimage.AppImage, budget_s: float | None, workers: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Every state, on `workers` processes, as far as the budget goes -> the result as JSON values.

    Raises: BenchError.
    """
    began = time.monotonic()
    result: dict[str, Any] = {"schema": SCHEMA, "failed": [], "complete": True}
    with tempfile.TemporaryDirectory(prefix="tableside-image-") as name:
        apps_bytes = write_images(image, Path(name))
        share_s = None if budget_s is None else budget_s / 2
        for rollback in (True, False):
            players = [
                start(Path(name), apps_bytes, Plan(workers, n, rollback=rollback, budget_s=share_s))
                for n in range(workers)
            ]
            try:
                for part in [finish(player) for player in players]:
                    _add(result, part)
            finally:
                for player in players:
                    children.kill(player)
            kind = "with" if rollback else "without"
            say(f"bootloader {kind} rollback: {result['states']} states, {len(result['failed'])} failures")
    seconds = time.monotonic() - began
    result |= {
        "failures": len(result["failed"]),
        "seconds": round(seconds, 1),
        "states_per_s": round(result["states"] / seconds, 1),
    }
    return result


def _add(result: dict[str, Any], part: dict[str, Any]) -> None:
    result["failed"] += part["failed"]
    result["complete"] = result["complete"] and part["complete"]
    result["golden"] = part["golden"]
    for key in ("states", "cuts", "torn", "second_cuts", "starts"):
        result[key] = result.get(key, 0) + part[key]


def _interpreter() -> Path:
    try:
        return images.build("process").path
    except images.ImageError as error:
        raise BenchError(error.code.upper().replace("-", "_"), str(error)) from error


def small_image() -> appimage.AppImage:
    """The image the campaign plays with unless it is given a real one."""
    return appimage.synthetic(CHIP_ID, _SEGMENT_BYTES)
