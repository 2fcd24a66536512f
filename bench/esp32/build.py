"""Builds what goes into an ESP32's flash: application, file system, partition table, and one merged image.

Without a MicroPython image the application side is built alone: enough to look at, and to update a chip that
has been flashed before. With one, the result is complete for an empty chip. The same inputs give the same
bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from esptool.cmds import merge_bin  # type: ignore[import-untyped]

from bench.errors import BenchError
from bench.esp32 import application
from bench.esp32.layout import (
    DEFAULT_FLASH_MB,
    FACTORY_APP_OFFSET,
    IMAGE_MAGIC,
    TABLE_OFFSET,
    Chip,
    Layout,
    chip_of_image,
    flash_mb_of_image,
    load_layout,
)
from bench.images import ImageError, mpy_cross
from bench.paths import BUILD

OUTPUT = BUILD / "firmware" / "esp32"
DESCRIPTION = "build.json"
_ERASED = b"\xff"


@dataclass(frozen=True)
class Part:
    """One piece of the flash: byte offset, size, digest, and its file beside the description."""

    name: str
    file: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Build:
    """What `build` made. `merged` is one file for an empty chip from its boot offset on, or None."""

    chip: str
    folder: Path
    application_bytes: int
    parts: list[Part]
    merged: Part | None


@dataclass(frozen=True)
class MicroPython:
    """The two halves of a published MicroPython image: bootloader and application."""

    chip: Chip
    bootloader: bytes
    application: bytes


def split_micropython(image: bytes, what: str) -> MicroPython:
    """Take a published merged image apart; its own partition table has no place for updates and is left out.

    Raises: BenchError(BAD_IMAGE, UNKNOWN_CHIP).
    """
    chip = chip_of_image(image, what)
    table_at, app_at = TABLE_OFFSET - chip.boot_offset, FACTORY_APP_OFFSET - chip.boot_offset
    if image[table_at : table_at + 2] != b"\xaa\x50" or image[app_at : app_at + 1] != bytes([IMAGE_MAGIC]):
        raise BenchError(
            "BAD_IMAGE",
            f"{what} is not a complete MicroPython image: take the .bin for a first installation.",
        )
    return MicroPython(chip, image[:table_at].rstrip(_ERASED), image[app_at:])


def build(
    chip: Chip,
    *,
    micropython: MicroPython | None,
    root_key: bytes | None,
    with_agent: bool = False,
    settings: bytes | None = None,
    flash_mb: int = DEFAULT_FLASH_MB,
    out: Path = OUTPUT,
    progress: Callable[[str], None],
) -> Build:
    """Build everything for one chip into `out`/<chip>; `settings` become its /settings.json.

    Raises: BenchError (COMPILE_FAILED, DOES_NOT_FIT, BAD_PARTITIONS, WRONG_CHIP, and those of bench.images).
    """
    if micropython is not None and micropython.chip != chip:
        raise BenchError(
            "WRONG_CHIP", f"The MicroPython image is for {micropython.chip.name}, the build for {chip.name}."
        )
    layout = load_layout(flash_mb)
    if micropython is not None:
        micropython = _for_flash(micropython, flash_mb)
    try:
        compiler = mpy_cross(progress=progress)
    except ImageError as error:
        raise BenchError(error.code, str(error)) from error
    progress("compiling the application")
    sources = application.sources(root_key, with_agent=with_agent)
    if settings is not None:
        sources["settings.json"] = settings
    files = application.compile_files(sources, compiler, chip)
    pieces = [
        ("partitions", TABLE_OFFSET, layout.binary),
        ("vfs", layout["vfs"].offset, application.littlefs_image(files, layout["vfs"].size)),
    ]
    if micropython is not None:
        pieces += _micropython_pieces(micropython, layout)
    folder = _empty_folder(out / chip.name)
    _write_application(folder / "application", files)
    parts = [_write(folder, name, offset, data) for name, offset, data in sorted(pieces, key=lambda p: p[1])]
    merged = None if micropython is None else _merge(folder, chip, pieces)
    result = Build(chip.name, folder, sum(map(len, files.values())), parts, merged)
    _describe(result)
    return result


def load(folder: Path) -> Build:
    """Read a finished build again, and check every file against its digest.

    Raises: BenchError(NO_BUILD, BAD_BUILD).
    """
    description = folder / DESCRIPTION
    if not description.is_file():
        raise BenchError(
            "NO_BUILD",
            f"{folder} holds no build: run tableside firmware build --board esp32 --micropython IMAGE first.",
        )
    try:
        fields = json.loads(description.read_text(encoding="utf-8"))
        parts = [Part(**part) for part in fields["parts"]]
        merged = Part(**fields["merged"]) if fields["merged"] else None
        result = Build(fields["chip"], folder, fields["application_bytes"], parts, merged)
        for part in parts:
            read_part(result, part)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError("BAD_BUILD", f"{description} is damaged ({error}): build again.") from error
    return result


def read_part(made: Build, part: Part) -> bytes:
    """The bytes of one part.

    Raises: ValueError when they are not the ones that were built.
    """
    data = (made.folder / part.file).read_bytes()
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ValueError(f"{part.file} has changed since it was built")
    return data


def _for_flash(micropython: MicroPython, flash_mb: int) -> MicroPython:
    """The same with a bootloader whose header names the flash size: it accepts no larger partition table."""
    if flash_mb_of_image(micropython.bootloader) == flash_mb:
        return micropython
    offset = micropython.chip.boot_offset
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        bootloader = merge_bin(
            [(offset, micropython.bootloader)],
            chip=micropython.chip.name,
            target_offset=offset,
            flash_size=f"{flash_mb}MB",
        )
    return replace(micropython, bootloader=bytes(bootloader))


def _micropython_pieces(micropython: MicroPython, layout: Layout) -> list[tuple[str, int, bytes]]:
    slot, size = layout["ota_0"], len(micropython.application)
    if size > slot.size:
        raise BenchError(
            "DOES_NOT_FIT", f"The MicroPython application has {size} bytes, partition ota_0 only {slot.size}."
        )
    return [
        ("bootloader", micropython.chip.boot_offset, micropython.bootloader),
        # erased: the bootloader then starts ota_0, and a chip flashed again forgets a half-done update
        ("otadata", layout["otadata"].offset, _ERASED * layout["otadata"].size),
        # belongs to otadata: a chip flashed by cable begins a new history of images
        ("image", layout["image"].offset, _ERASED * layout["image"].size),
        ("micropython", slot.offset, micropython.application),
    ]


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_application(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _write(folder: Path, name: str, offset: int, data: bytes, file: str = "") -> Part:
    file = file or f"{name}.bin"
    (folder / file).write_bytes(data)
    return Part(name, file, offset, len(data), hashlib.sha256(data).hexdigest())


def _merge(folder: Path, chip: Chip, pieces: list[tuple[str, int, bytes]]) -> Part:
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        merged = merge_bin(
            [(offset, data) for _, offset, data in pieces], chip=chip.name, target_offset=chip.boot_offset
        )
    return _write(folder, "merged", chip.boot_offset, bytes(merged), f"tableside-{chip.name}.bin")


def _describe(made: Build) -> None:
    fields = asdict(made) | {"folder": None}
    (made.folder / DESCRIPTION).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
