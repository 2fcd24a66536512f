"""A terminal's littlefs, opened by the bench from the bytes of its flash region."""

from __future__ import annotations

from collections.abc import Iterator
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
    image = flash.read("vfs")
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
    volume.mount()
    yield volume
    volume.unmount()
    if keep:
        flash.write("vfs", bytes(volume.context.buffer))
