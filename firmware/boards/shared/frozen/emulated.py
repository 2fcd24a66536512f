# The board object of the emulated boards, over the C module `_board`. Each board's board.py adds its names.
#
# The terminal sees hardware only through what a `board` module exports.

import json

import _board
import vfs
from terminal import regions

boots = _board.boots  # starts since power-on
idle_us = _board.idle_us
instret = _board.instret
random = _board.urandom
reset = _board.reset
reset_cause = _board.reset_cause

root = ""  # littlefs is mounted at /
import_path = [".frozen"]  # all the terminal needs; a start would search the file system 280 times otherwise
mounted = []  # the file system once it is there
image_version = 0  # set by the loader: release number of this image
image_digest = None  # set by the loader: what names this image, None if nobody built one
on_trial = False  # set by the loader: the application has to prove itself
update_pending = False  # set by the loader: an update is under way, or there is something to report
_FAT_SIGNATURE = b"\x55\xaa"


def region(name):
    # -> the block device of a region of the flash map.
    offset, size = regions.find(name)
    return _board.Flash(offset, size)


def mount():
    # Mount littlefs2 at / -> True if the file system had to be made anew (first start, or damaged beyond
    # mounting). OSError for a FAT volume: updates cannot be made safe there.
    dev = region(regions.VFS)
    try:
        _mount(dev)
        return False
    except OSError:
        pass  # never formatted, or the power failed while it was: both are made anew below
    head = bytearray(512)
    dev.readblocks(0, head, 0)
    if head[510:] == _FAT_SIGNATURE:
        raise OSError("the file system is FAT: erase the vfs region, the terminal makes littlefs2 there")
    vfs.VfsLfs2.mkfs(dev)
    _mount(dev)
    return True


def _mount(dev):
    volume = vfs.VfsLfs2(dev, mtime=False)  # no clock to take it from, and a write less for every file
    vfs.mount(volume, "/")
    mounted.append(volume)


def options():
    # -> what the bench gave this board at power-on (dict, empty without a bench).
    text = _board.boot_options()
    return json.loads(text) if text else {}


def wdt_start(timeout_ms):
    _board.wdt(timeout_ms)


def wdt_feed():
    _board.wdt(0)


def wdt_stop():
    # Only an emulated watchdog can be stopped: for people at the prompt.
    _board.wdt(-1)


def stats():
    # -> flash counters since this start.
    erases, programs, program_bytes, violations = _board.flash_stats()
    return {"erases": erases, "programs": programs, "bytes": program_bytes, "violations": violations}
