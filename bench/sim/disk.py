"""The server's disk: what was not synced may be gone after a power failure.

Files are real files, read and locked by SQLite's own unix layer; every write, truncation and sync passes
through here. For each file the disk keeps the *durable image* (what was synced) and the writes since. When
the power fails, the survivor of a file is its durable image plus what a real disk may have written by then:
nothing, a prefix, all, or any subset of the unsynced writes, the last of them torn at a 512-byte sector.

Files appear and vanish durably at once (as after a synced directory). The wal-index (-shm) is memory and
never survives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from bench.sim.randomness import Seeded

SECTOR_BYTES = 512
_TRUNCATE = None


@dataclass
class _Stored:
    """A file as the platter knows it: durable bytes, and (offset, data) or (size, None) since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def survivor(self, random: Seeded) -> bytes:
        image = bytearray(self.durable)
        survived = list(self.pending)
        fate = random.draw.choice(("none", "prefix", "all", "subset"))
        if fate == "none":
            survived = []
        elif fate == "prefix":
            survived = survived[: random.draw.randrange(len(survived) + 1)]
        elif fate == "subset":
            survived = [change for change in survived if random.chance(0.5)]
        for change in survived[:-1]:
            _apply(image, change)
        if survived:
            _apply(image, _torn(survived[-1], random) if fate in ("prefix", "subset") else survived[-1])
        return bytes(image)


def _apply(image: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is _TRUNCATE:
        del image[offset:]
        return
    assert data is not None
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def _torn(change: tuple[int, bytes | None], random: Seeded) -> tuple[int, bytes | None]:
    offset, data = change
    if data is None or len(data) <= SECTOR_BYTES:
        return change
    return offset, data[: SECTOR_BYTES * random.draw.randrange(1, len(data) // SECTOR_BYTES + 1)]


class Disk:
    """One machine's disk: a VFS for apsw connections, and the moment it loses power.

    ``on_step`` is called before every write and every sync: a fault may cut the power right there.
    """

    _made = 0

    def __init__(self, folder: Path, on_step: Callable[[], None] | None = None) -> None:
        Disk._made += 1
        self.vfs_name = f"tableside-sim-{Disk._made}"
        self.folder = folder
        self.frozen = False
        self.full = False
        self.steps = 0
        self.syncs = 0
        self.on_step = on_step
        self._files: dict[str, _Stored] = {}
        self._vfs = _Vfs(self)

    def step(self) -> bool:
        """One write or sync is about to happen; False when the disk is dead."""
        if not self.frozen:
            self.steps += 1
            if self.on_step is not None:
                self.on_step()
        return not self.frozen

    def freeze(self) -> None:
        """The power fails: nothing reaches the platter from now on."""
        self.frozen = True

    def survivors(self, random: Seeded) -> dict[str, bytes]:
        """File name -> bytes after the power failure, for files that are still there."""
        return {
            name: stored.survivor(random)
            for name, stored in sorted(self._files.items())
        }  # fmt: skip

    def close(self) -> None:
        """Forget the VFS; its connections must be closed."""
        self._vfs.unregister()

    def load(self, files: dict[str, bytes]) -> None:
        """Put files on the disk before it is used, durably."""
        for name, data in sorted(files.items()):
            (self.folder / name).write_bytes(data)
            self._files[name] = _Stored(bytearray(data))

    def stored(self, name: str) -> _Stored:
        """The platter's side of a file that is being opened."""
        return self._files.setdefault(name, _Stored())

    def forget(self, name: str) -> None:
        """A file was deleted."""
        self._files.pop(name, None)


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.vfs_name, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not flags[0] & (
            apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        ):
            return apsw.VFSFile("", name, flags)
        return _File(self._disk, Path(path).name, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self._disk.frozen:
            return
        super().xDelete(filename, syncdir)
        self._disk.forget(Path(filename).name)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str, path: Any, flags: list[int]) -> None:
        self._disk = disk
        self._stored = disk.stored(name)
        super().__init__("", path, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.step():
            if self._disk.full:
                raise apsw.FullError("the simulated disk is full")
            super().xWrite(data, offset)
            self._stored.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        if self._disk.step():
            super().xTruncate(newsize)
            self._stored.pending.append((newsize, _TRUNCATE))

    def xSync(self, flags: int) -> None:
        if self._disk.step():
            self._disk.syncs += 1
            self._stored.sync()
