"""A terminal's littlefs, opened by the bench from the bytes of its flash region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from littlefs import LittleFS

from bench.boards.base import Flash
from bench.boards.flashmap import SECTOR_BYTES

_READ_BYTES = 32
_CACHE_BYTES = 128


@contextmanager
def opened(flash: Flash | None, keep: bool = True) -> Iterator[LittleFS]:
    """The file system of a board that is off; with `keep`, what was changed is written back at the end.

    Raises: littlefs.LittleFSError when it cannot be mounted.
    """
    assert flash is not None
    volume = _over(flash.read("vfs"))
    volume.mount()
    yield volume
    volume.unmount()
    if keep:
        flash.write("vfs", bytes(volume.context.buffer))


def made(files: Mapping[str, bytes], size: int) -> bytes:
    """A new file system of `size` bytes that holds these files, by path."""
    volume = _over(b"\xff" * size)
    volume.format()
    volume.mount()
    for path, content in files.items():
        if "/" in path:
            volume.makedirs(path.rpartition("/")[0], exist_ok=True)
        with volume.open(path, "wb") as file:
            file.write(content)
    volume.unmount()
    return bytes(volume.context.buffer)


def _over(image: bytes) -> LittleFS:
    volume = LittleFS(
        block_size=SECTOR_BYTES,
        block_count=len(image) // SECTOR_BYTES,
        read_size=_READ_BYTES,
        prog_size=_READ_BYTES,
        lookahead_size=_READ_BYTES,
        cache_size=_CACHE_BYTES,
        mount=False,
    )
    volume.context.buffer = bytearray(image)
    return volume
