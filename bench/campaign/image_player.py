"""Plays lines of the campaign for firmware images: one modelled chip in a MicroPython process of its own.

firmware/boards/process/image_cuts.py is that process. It makes the golden updates when it starts, and then
answers one request after the other.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench import children, images
from bench.boards.flashmap import FLASH_BYTES
from bench.campaign.lines import Line
from bench.campaign.oracles import Failure
from bench.campaign.signer import fixture
from bench.errors import BenchError
from bench.esp32 import appimage
from bench.paths import ROOT
from server.releases.bundle import Target, build_bundle, certify
from server.releases.rules import IMAGE_PATH

FIRMWARE = ROOT / "firmware"
CHIP_ID = 5  # an ESP32-C3
HARDWARE = "esp32c3-image"
SECTOR_BYTES = 4096
OTADATA_AT = FLASH_BYTES
APPS_AT = FLASH_BYTES + 0x10000
NO_ROLLBACK = "-norollback"
UPDATES = ("new", "first", "bad", *(name + NO_ROLLBACK for name in ("new", "first", "bad")))
_PLAYER = "boards/process/image_cuts.py"
_RELEASES = ("cable", "old", "new", "bad")
_HEAP = "heapsize=128m"
_SPARE_BYTES = 2 * SECTOR_BYTES
_ANSWER = b"@answer "

Steps = Sequence[tuple[int, int]]  # (offset, size in bytes) of every flash step
Goldens = Mapping[str, Steps]  # of every undisturbed update


@dataclass(frozen=True)
class Releases:
    """Four builds of an image as signed releases in a folder, and the partition size they need in bytes."""

    folder: Path
    apps_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Size of the chip's flash."""
        return APPS_AT + 2 * self.apps_bytes


@dataclass(frozen=True)
class Verdict:
    """What became of a line. `sizes`: bytes of every flash step of the recovery, if they were asked for."""

    line: Line
    hash: int
    failures: tuple[Failure, ...]
    starts: int
    sizes: tuple[int, ...]
    console: str


def write_releases(image: appimage.AppImage, folder: Path) -> Releases:
    """Sign four builds of an image. Raises: Refusal for an image no server would sign."""
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
    return Releases(folder, -(-size // SECTOR_BYTES) * SECTOR_BYTES + _SPARE_BYTES)


class ImagePlayer:
    """One chip. A context manager; the process ends with it, and with the thread that made it."""

    def __init__(
        self, releases: Releases, firmware: Path = FIRMWARE, updates: Sequence[str] = UPDATES
    ) -> None:
        self._process = _start(releases, firmware, updates)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._busy = threading.Lock()

    def __enter__(self) -> ImagePlayer:
        return self

    def __exit__(self, *trouble: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, also from another thread: whoever waits for an answer gets BenchError(CHIP_GONE)."""
        children.kill(self._process)
        with self._busy, suppress(BrokenPipeError):  # it was asked for something just before
            self._from.close()
            self._to.close()

    def goldens(self) -> Goldens:
        """The steps of every undisturbed update. Raises: BenchError(CHIP_GONE) where one does not work."""
        found: Goldens = self._ask({"do": "goldens"})[0]
        return {name: found[name] for name in UPDATES if name in found}

    def play(self, line: Line, sizes: bool = False) -> Verdict:
        """Make the state a line describes, start it and follow it to its end.

        Raises: BenchError(BAD_LINE, CHIP_GONE).
        """
        answer, console = self._ask({"do": "play", "line": str(line), "sizes": sizes})
        failures = tuple(Failure(oracle, text) for oracle, text in answer["failed"])
        found = tuple(answer.get("sizes", ()))
        return Verdict(line, int(answer["hash"] or "0", 16), failures, answer["starts"], found, console)

    def export(self, line: Line, file: Path) -> str:
        """Write the whole flash a line describes -> its name, 32 hex digits.

        Raises: BenchError(BAD_LINE, CHIP_GONE).
        """
        return str(self._ask({"do": "export", "line": str(line), "file": str(file)})[0]["hash"])

    def _ask(self, request: Mapping[str, object]) -> tuple[Any, str]:
        """-> (answer, console until it came)."""
        with self._busy:
            said: list[bytes] = []
            try:
                self._to.write(json.dumps(request).encode() + b"\n")
                self._to.flush()
                for line in self._from:
                    if line.startswith(_ANSWER):
                        break
                    said.append(line)
                else:
                    raise _gone(said)
            except (BrokenPipeError, ValueError):  # it ended, or was closed, before it was asked
                raise _gone(said) from None
        answer = json.loads(line[len(_ANSWER) :])
        if "refused" in answer:
            raise BenchError("BAD_LINE", f"{request['line']}: {answer['refused']}.")
        return answer, b"".join(said).decode(errors="replace")


def _gone(said: Sequence[bytes]) -> BenchError:
    last = said[-1].decode(errors="replace").strip() if said else "nothing"
    return BenchError("CHIP_GONE", f"The modelled chip ended by itself; it said last: {last}")


def _start(releases: Releases, firmware: Path, updates: Sequence[str]) -> subprocess.Popen[bytes]:
    job: dict[str, Any] = {name: str(releases.folder / name) for name in _RELEASES}
    job |= {"apps_bytes": releases.apps_bytes, "chip_id": CHIP_ID, "updates": list(updates)}
    file = releases.folder / "job.json"
    text = json.dumps(job)
    if not file.is_file() or file.read_text() != text:
        file.write_text(text)
    command = [str(_interpreter()), "-X", _HEAP, str(firmware / _PLAYER), str(firmware), str(file)]
    return children.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _interpreter() -> Path:
    try:
        return images.build("process").path
    except images.ImageError as error:
        raise BenchError(error.code.upper().replace("-", "_"), str(error)) from error
