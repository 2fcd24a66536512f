# Firmware images in two app partitions: which one may run, and what is to be done about it. No I/O.
#
# The states are those of states.py, kept in a record of their own; slot a is ota_0, slot b is ota_1. The
# difference to an application: the bootloader chooses before any of our code runs, and what it goes by,
# otadata, is weaker than our record. Each of its two entries is rewritten in place, its CRC covers the
# sequence number alone, and an image that was started once without being marked valid is never started
# again. So our record says what was meant, otadata is read as a witness, and where they differ the terminal
# reports the difference and puts it right:
#
#   on record      running      otadata of the other image        what happens
#   armed, trial   the new one                                    one more start of the trial
#   armed, trial   the old one  no entry: the choice was cut off  chosen again, starts counted
#   armed, trial   the old one  aborted, the power went away      chosen again, starts counted
#   armed, trial   the old one  aborted, after a reset            rolled back: fell-back
#   armed, trial   the old one  still chosen                      rolled back: image-refused
#   at rest        another one                                    back to ours if it is whole, else image-lost

from ..compat import const
from . import states
from .states import ARMED, FACTORY, MAX_STARTS, NO_HASH, TRIAL

ENTRY_BYTES = const(32)
SLOTS = const(2)

# ota_state of an entry (ESP-IDF, esp_flash_partitions.h)
NEW = const(0)  # chosen; the bootloader has not seen it yet
PENDING = const(1)  # started once, not marked valid yet
VALID = const(2)
INVALID = const(3)
ABORTED = const(4)  # started once, not marked valid, taken out by the bootloader
UNDEFINED = const(0xFFFFFFFF)  # a bootloader without rollback


class Entry:
    # One of otadata's two entries. sector: 0 or 1; slot: the image its sequence number stands for.
    def __init__(self, sector, sequence, state):
        self.sector = sector
        self.sequence = sequence
        self.state = state
        self.slot = (sequence - 1) % SLOTS

    def is_bootable(self):
        return self.state != INVALID and self.state != ABORTED


def newest(entries, slot=None):
    # -> the entry with the highest sequence number, of those for one slot if it is given; None without any.
    # entries: what was read from otadata, None for one that is blank or damaged.
    found = None
    for entry in entries:
        if entry is None or slot not in (None, entry.slot):
            continue
        if found is None or entry.sequence > found.sequence:
            found = entry
    return found


def selected(entries):
    # -> the entry the bootloader goes by, None without any.
    return newest([entry for entry in entries if entry is not None and entry.is_bootable()])


def boot(state, running, entries, spent, is_whole):
    # What to do at a start. running: slot of the image that runs; spent: the last start ended by other means
    # than the power going away; is_whole(slot, digest): whether that partition holds exactly that image.
    # -> (state to store first, slot that otadata has to select); if that is not the one that runs, the
    # terminal has to restart. Every loop this can be part of is bounded by tries and starts.
    if state.slot == FACTORY:
        return state.but(slot=running), running  # the first start with a record: what runs is what we have
    if state.state == ARMED or state.state == TRIAL:
        return _on_trial(state, running, entries, spent, is_whole)
    return _at_rest(state, running, is_whole)


def _on_trial(state, running, entries, spent, is_whole):
    target = state.target()
    if running == target:
        state = states.start_trial(state, spent, is_whole)
    else:
        state = _after_return(state, _choice(entries, target, running), spent, is_whole)
    return state, target if state.state in (ARMED, TRIAL) else state.slot


def _choice(entries, slot, other):
    # -> the entry that chose `slot` over `other`, None if there is none (any more).
    entry = newest(entries, slot)
    before = newest(entries, other)
    return None if entry is None or (before is not None and before.sequence > entry.sequence) else entry


def _after_return(state, entry, spent, is_whole):
    # The old image runs although the new one was to be tried.
    if state.starts >= MAX_STARTS:
        return states.rolled_back(state, states.STARTS_SPENT)
    if not is_whole(state.target(), state.other_hash):
        return states.rotted(state)
    if entry is not None and entry.is_bootable() and entry.state != NEW:
        return states.rolled_back(state, states.IMAGE_REFUSED)
    if entry is not None and not entry.is_bootable() and spent and not state.lasted:
        return states.rolled_back(state, states.FELL_BACK)
    return states.rearmed(state)


def _at_rest(state, running, is_whole):
    whole = is_whole(state.slot, state.hash)
    if running == state.slot:
        if not whole:
            state = state.but(version=0, hash=NO_HASH, reason=states.IMAGE_UNKNOWN)
        return state.but(starts=0) if state.starts else state, running
    # The bootloader lost our choice, or could not start it.
    if whole and state.starts < MAX_STARTS:
        return state.but(starts=state.starts + 1), state.slot
    known = state.other_hash != NO_HASH and is_whole(running, state.other_hash)
    return (
        state.but(
            state=states.CONFIRMED,
            slot=running,
            version=state.other_version if known else 0,
            hash=state.other_hash if known else NO_HASH,
            other_version=0,
            other_hash=NO_HASH,
            other_floor=0,
            starts=0,
            reason=states.IMAGE_LOST,
        ),
        running,
    )
