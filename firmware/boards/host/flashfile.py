# NOR flash in a file: what was programmed is in the file when the call returns, on the disk too.

import fcntl
import mmap
import os

from terminal import regions

from .nor import SECTOR_BYTES, Nor

_PAGE_BYTES = mmap.PAGESIZE


def _for_its_owner(path, flags):
    return os.open(path, flags, 0o600)  # there are keys in it


class FlashFile(Nor):
    # path: made, erased, if it is not there. One process at a time: OSError for a second one.
    # What the control record says about files must not be on the disk before the files are.

    def __init__(self, path):
        super().__init__(0)
        self._file = open(path, "a+b", opener=_for_its_owner)  # noqa: SIM115 - as long as the terminal runs
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = self._file.seek(0, os.SEEK_END)
        self._file.write(b"\xff" * (regions.FLASH_BYTES - size))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.data = mmap.mmap(self._file.fileno(), regions.FLASH_BYTES)
        start, length = regions.find(regions.CONTROL)
        self._record = range(start, start + length)

    def program(self, offset, buf):
        if offset in self._record:
            os.sync()
        super().program(offset, buf)
        self._store(offset, len(buf))

    def erase(self, offset):
        super().erase(offset)
        self._store(offset, SECTOR_BYTES)

    def _store(self, offset, length):
        start = offset // _PAGE_BYTES * _PAGE_BYTES
        self.data.flush(start, offset + length - start)

    def close(self):
        self.data.close()
        self._file.close()
