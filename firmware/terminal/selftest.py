# What an application on trial must be able to do by itself, without any network.
#
# That it was built at all has shown the rest: the identity was read and the parts of its key fit together,
# and the start was counted in flash. Nothing is written here. What rot alone can break (a torn menu, a lost
# order) is no fault of the application: the one before it would find the same.

import gc

from .compat import const, ticks_diff, ticks_us
from .counters import Counters
from .heap import free
from .regions import COUNTERS

HEAP_FLOOR_BYTES = const(16384)
_LOOKS = const(100000)
_ROTTEN = (None, "MENU_TORN", "MENU_IO")  # MenuStore.fault


def fault(app):
    # app: the Terminal. -> code of the first thing that does not work (docs/codes.md), None if all do.
    try:
        if not _counted(app):
            return "SELF_TEST_COUNTERS"
        for _ in app.outbox.pending():  # reads each back and checks it
            pass
        if not _menu_is_readable(app.menu):
            return "SELF_TEST_MENU"
    except Exception:  # noqa: BLE001 - whatever storage raises, it does not work
        return "SELF_TEST_STORAGE"
    if not _clock_ticks():
        return "SELF_TEST_CLOCK"
    gc.collect()
    if 0 < free() < HEAP_FLOOR_BYTES:
        return "SELF_TEST_HEAP"
    return None


def _counted(app):
    # Whether the number of this start is in flash.
    return Counters(app.board.region(COUNTERS)).boots() == app.boots


def _menu_is_readable(menu):
    # A terminal may have none yet. Its signature was checked before it was stored, its hash at this start.
    if menu.current() is None:
        return menu.fault in _ROTTEN
    for _ in menu.items():
        break
    return True


def _clock_ticks():
    first = ticks_us()
    return any(ticks_diff(ticks_us(), first) > 0 for _ in range(_LOOKS))
