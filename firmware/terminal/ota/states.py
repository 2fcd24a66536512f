# The states of an update and every way from one to the next: tables and pure functions, no I/O.
#
#   CONFIRMED -> STAGING -> VERIFIED -> ARMED -> TRIAL -> CONFIRMED (the new bundle)
#                                             \-> ROLLED_BACK -> CONFIRMED (the old one)
#
# A State is what the control record stores. Each function takes one and returns the next; whoever calls it
# stores the result *before* acting on it. `active` is the bundle that runs when nothing is on trial;
# `other` is what the second slot holds or is being filled with. Slot 2 is the factory application frozen
# into the image.

from ..compat import const

CONFIRMED = const(0)
STAGING = const(1)
VERIFIED = const(2)
ARMED = const(3)
TRIAL = const(4)
ROLLED_BACK = const(5)
NAMES = ("confirmed", "staging", "verified", "armed", "trial", "rolled-back")

SLOT_A = const(0)
SLOT_B = const(1)
FACTORY = const(2)
SLOT_NAMES = ("a", "b", "factory", "ota_0", "ota_1")  # the last two: firmware images, in reports

# Why the terminal does not run what it was meant to, or did not take what it was offered.
NONE = const(0)
TRIES_SPENT = const(1)  # the new application started three times and did not confirm
STARTS_SPENT = const(2)  # ten starts of any kind and no confirmation
SLOT_BAD = const(3)  # the bytes in the trial slot were the bundle's and have changed: it is fetched again
ACTIVE_BAD = const(4)  # the running slot's bytes changed: went back to the previous bundle
BOTH_BAD = const(5)  # neither slot holds its bundle: the factory application runs
RECORD_LOST = const(6)  # no control record could be read
CANCELLED = const(7)  # by an operator
NO_SPACE = const(8)
BAD_BYTES = const(9)  # what arrived, or what was installed, is not what the manifest says
QUARANTINED = const(10)  # this bundle failed here before: an operator has to release it
BELOW_FLOOR = const(11)
BAD_SIGNATURE = const(12)
WRONG_TARGET = const(13)  # another product, hardware, group or firmware range
BAD_MANIFEST = const(14)  # signed, but its paths or sizes are not allowed
ALREADY_THERE = const(15)
STALE_OFFER = const(16)  # the server does not name it when asked: old, or another terminal's
OLD_KEY = const(17)  # its release key is older than one known here, or newer without a rotation
# Firmware images only (image_states.py), up to NOT_NOW:
FELL_BACK = const(18)  # the new image did not confirm in its one start, the bootloader went back
IMAGE_REFUSED = const(19)  # the chip does not start it: no image, another chip's, or it did not pass
IMAGE_UNKNOWN = const(20)  # what runs is not the image that is on record (flashed by cable)
IMAGE_LOST = const(21)  # the image on record is damaged, the bootloader took the other one
NOT_SELECTED = const(22)  # the bootloader's choice could not be stored, or did not read back
NOT_NOW = const(23)  # the application's own update comes first
WRONG_IMAGE = const(24)  # a bundle made over another image of the same number, or over none it names
WRONG_CODE = const(25)  # a compiled module for another processor, or another MicroPython
OTHER_IMAGE = const(26)  # the bundle that ran was made over another image: the factory application runs
FLASH_FAILS = const(27)  # verified bundles were found changed MAX_ROTTEN times in a row: quarantined
CRASH_LOOP = const(28)  # the running bundle, confirmed before, did not last MAX_CRASHES starts in a row
FILE_FAILED = const(29)  # a file operation failed for another reason than want of room
REASONS = (
    "none",
    "tries-spent",
    "starts-spent",
    "slot-bad",
    "active-bad",
    "both-bad",
    "record-lost",
    "cancelled",
    "no-space",
    "bad-bytes",
    "quarantined",
    "below-floor",
    "bad-signature",
    "wrong-target",
    "bad-manifest",
    "already-there",
    "stale-offer",
    "old-release-key",
    "fell-back",
    "image-refused",
    "image-unknown",
    "image-lost",
    "not-selected",
    "not-now",
    "wrong-image",
    "wrong-code",
    "other-image",
    "flash-fails",
    "crash-loop",
    "file-failed",
)


def in_words(reason):
    # -> the reason's name. A record may hold one that was given after this code was frozen.
    return REASONS[reason] if reason < len(REASONS) else "reason " + str(reason)


MAX_TRIES = const(3)
MAX_STARTS = const(10)
MAX_CRASHES = const(5)
MAX_ROTTEN = const(3)  # verified bundles found changed before one was confirmed; then the last is quarantined
PREFIX_BYTES = const(6)
NO_HASH = bytes(32)
NO_PREFIX = bytes(PREFIX_BYTES)
_GIVEN_UP = {
    "other_hash": NO_HASH,
    "other_version": 0,
    "other_floor": 0,
    "tries": 0,
    "starts": 0,
    "lasted": 0,
}

_OFFER = const(0)
_INSTALL = const(1)
_ARM = const(2)
_START = const(3)
_CONFIRM = const(4)
_FAIL = const(5)
_SETTLE = const(6)
_CANCEL = const(7)
_REPEAT = const(8)
_LAST = const(9)

_NEXT = {
    (CONFIRMED, _OFFER): STAGING,
    (STAGING, _OFFER): STAGING,
    (VERIFIED, _OFFER): STAGING,
    (STAGING, _INSTALL): VERIFIED,
    (VERIFIED, _ARM): ARMED,
    (ARMED, _START): TRIAL,
    (TRIAL, _START): TRIAL,
    (TRIAL, _CONFIRM): CONFIRMED,
    (ARMED, _REPEAT): ARMED,
    (TRIAL, _REPEAT): ARMED,
    (TRIAL, _LAST): TRIAL,
    (ARMED, _FAIL): ROLLED_BACK,
    (TRIAL, _FAIL): ROLLED_BACK,
    (ROLLED_BACK, _SETTLE): CONFIRMED,
    (STAGING, _CANCEL): CONFIRMED,
    (VERIFIED, _CANCEL): CONFIRMED,
    (ARMED, _CANCEL): CONFIRMED,
}


class OtaError(Exception):
    # A step that is refused; reason is one of the numbers above.
    def __init__(self, reason):
        super().__init__(REASONS[reason])
        self.reason = reason
        self.code = "OTA_" + REASONS[reason].upper().replace("-", "_")


class State:
    # An immutable value; `but` makes the changed copy.
    FIELDS = (
        "state",
        "slot",  # of the active bundle
        "tries",
        "starts",  # on trial those that did not last, at rest those after a crash since one lasted
        "reason",
        "lasted",  # 1: the newest start on trial lasted, and counts neither as a start nor as a try
        "rotten",  # verified bundles that were found changed since the last confirmation
        "version",  # of the active bundle, 0 for the factory application
        "floor",  # no bundle below this version is installed
        "other_version",
        "other_floor",  # what the floor becomes when `other` is confirmed
        "hash",  # SHA-256 of the active bundle's manifest-frame
        "other_hash",
        "quarantine",  # 4 hash prefixes, newest first
    )

    def __init__(self, values):
        self._values = values

    def __getattr__(self, name):
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __eq__(self, other):
        return isinstance(other, State) and self._values == other._values

    def __repr__(self):
        return f"State({NAMES[self.state]}, slot {SLOT_NAMES[self.slot]}, version {self.version})"

    def but(self, **changes):
        values = dict(self._values)
        values.update(changes)
        return State(values)

    def target(self):
        # -> the slot that `other` names: where the next bundle goes, or the one on trial.
        return SLOT_B if self.slot == SLOT_A else SLOT_A

    def is_quarantined(self, digest):
        return digest[:PREFIX_BYTES] in self.quarantine


def factory(reason=NONE):
    # -> the state of a terminal without any bundle.
    return State(
        {
            "state": CONFIRMED,
            "slot": FACTORY,
            "tries": 0,
            "starts": 0,
            "reason": reason,
            "lasted": 0,
            "rotten": 0,
            "version": 0,
            "floor": 0,
            "other_version": 0,
            "other_floor": 0,
            "hash": NO_HASH,
            "other_hash": NO_HASH,
            "quarantine": (NO_PREFIX,) * 4,
        }
    )


def _move(state, event, **changes):
    following = _NEXT.get((state.state, event))
    if following is None:
        raise ValueError("no such step from " + NAMES[state.state])
    return state.but(state=following, **changes)


# ---------------------------------------------------------------- installing


def judge(state, digest, version):
    # Whether this bundle may be installed now. Raises OtaError QUARANTINED, FLASH_FAILS, BELOW_FLOOR,
    # ALREADY_THERE.
    if state.is_quarantined(digest):
        is_flash = state.rotten >= MAX_ROTTEN and digest[:PREFIX_BYTES] == state.quarantine[0]
        raise OtaError(FLASH_FAILS if is_flash else QUARANTINED)
    if version < state.floor:
        raise OtaError(BELOW_FLOOR)
    if digest == state.hash:
        raise OtaError(ALREADY_THERE)


def staging(state, digest, version, floor):
    # A verified offer: its bundle goes into the target slot. Raises as judge.
    judge(state, digest, version)
    return _move(state, _OFFER, other_hash=digest, other_version=version, other_floor=floor, reason=NONE)


def verified(state):
    # Every installed byte was read back and is the manifest's.
    return _move(state, _INSTALL)


def armed(state):
    # The next boot tries the bundle.
    return _move(state, _ARM, tries=0, starts=0, lasted=0)


def cancelled(state, reason=CANCELLED):
    # Give the update up; what ran before it goes on running. A bundle on trial is quarantined, and one of
    # WRONG_CODE.
    if state.state == TRIAL:
        return rolled_back(state, reason)
    if state.state == CONFIRMED or state.state == ROLLED_BACK:
        return state
    if reason == WRONG_CODE:  # it can never run here: fetched once, and not again
        newest = (state.other_hash[:PREFIX_BYTES],)
        state = state.but(quarantine=newest + tuple(state.quarantine)[:3])
    return _move(state, _CANCEL, reason=reason, **_GIVEN_UP)


def confirmed(state):
    # The bundle on trial proved itself: it becomes the active one, and only now may the floor rise.
    return _move(
        state,
        _CONFIRM,
        slot=state.target(),
        version=state.other_version,
        hash=state.other_hash,
        other_version=state.version,
        other_hash=state.hash,
        other_floor=0,
        floor=max(state.floor, state.other_floor),
        tries=0,
        starts=0,
        lasted=0,
        rotten=0,
        reason=NONE,
    )


def lasted(state):
    # This start has lasted. On trial it spends nothing, once: what is missing for a confirmation is the
    # server, and that is not the bundle's fault. At rest the starts after a crash are forgotten.
    if state.state == TRIAL:
        return state if state.lasted else _move(state, _LAST, starts=state.starts - 1, lasted=1)
    return state.but(starts=0) if state.starts and state.state != ARMED else state


def settled(state):
    # The rollback was reported.
    return _move(state, _SETTLE, **_GIVEN_UP)


def quarantined(state, digest):
    # A bundle is not to be tried again until an operator releases it.
    newest = (digest[:PREFIX_BYTES],)
    return state.but(quarantine=newest + tuple(state.quarantine)[:3])


def released(state):
    # An operator lets quarantined bundles be tried again.
    return state.but(quarantine=(NO_PREFIX,) * 4, rotten=0)


# ---------------------------------------------------------------- booting


def boot(state, spent, is_whole):
    # What to run now. spent: the last start ended by other means than the power going away.
    # is_whole(slot, digest): whether the slot holds exactly that bundle, fit for this image.
    # -> (state to store first, slot to run). Every loop this can be part of is bounded by tries and starts.
    if state.state == ARMED or state.state == TRIAL:
        state = start_trial(state, spent, is_whole)
        if state.state == TRIAL:
            return state, state.target()
    elif spent and state.slot != FACTORY:
        state = _after_a_crash(state, is_whole)
    return _run_active(state, is_whole)


def start_trial(state, spent, is_whole):
    # What was armed, or is on trial, is about to run once more.
    tries = state.tries + (1 if spent and state.state == TRIAL and not state.lasted else 0)
    if tries >= MAX_TRIES:
        return rolled_back(state, TRIES_SPENT)
    if state.starts >= MAX_STARTS:
        return rolled_back(state, STARTS_SPENT)
    if not is_whole(state.target(), state.other_hash):
        return rotted(state)
    state = state.but(lasted=0)  # of the start before
    return _move(state, _START, tries=tries, starts=state.starts + 1)


def rearmed(state):
    # The trial did not take place, or was cut off by the power: the next boot tries again.
    return _move(state, _REPEAT, starts=state.starts + (0 if state.lasted else 1), lasted=0)


def rotted(state):
    # What was armed or on trial was whole when it was verified, and is not any more: flash is to blame. The
    # active bundle runs again and this one is fetched anew, a few times; its name stays until that is told.
    count = state.rotten + 1
    if count >= MAX_ROTTEN:
        return rolled_back(state.but(rotten=MAX_ROTTEN), FLASH_FAILS)
    return _move(state, _FAIL, rotten=count, reason=SLOT_BAD, tries=0, starts=0, lasted=0)


def rolled_back(state, reason):
    # What was armed or on trial failed. Quarantine the bundle; the active one runs again.
    newest = (state.other_hash[:PREFIX_BYTES],)
    return _move(
        state,
        _FAIL,
        quarantine=newest + tuple(state.quarantine)[:3],
        reason=reason,
        **_GIVEN_UP,
    )


def _after_a_crash(state, is_whole):
    # The active bundle runs once more after a reset that nobody may have wanted, counted until it lasts.
    if state.starts < MAX_CRASHES:
        return state.but(starts=state.starts + 1)
    state = quarantined(state, state.hash).but(starts=0)
    if _has_previous(state, is_whole):
        return _previous(state, CRASH_LOOP)
    return factory(CRASH_LOOP).but(floor=state.floor, rotten=state.rotten, quarantine=state.quarantine)


def _has_previous(state, is_whole):
    # A bundle that is only being downloaded does not count.
    return (
        state.state == CONFIRMED
        and state.other_hash != NO_HASH
        and is_whole(state.target(), state.other_hash)
    )


def _previous(state, reason):
    # The bundle before the active one takes over.
    return state.but(
        slot=state.target(),
        version=state.other_version,
        hash=state.other_hash,
        other_version=0,
        other_hash=NO_HASH,
        reason=reason,
    )


def _run_active(state, is_whole):
    if state.slot == FACTORY or is_whole(state.slot, state.hash):
        return state, state.slot
    if _has_previous(state, is_whole):  # the running slot rotted
        back = _previous(state, ACTIVE_BAD)
        return back, back.slot
    lost = factory(BOTH_BAD).but(floor=state.floor, quarantine=state.quarantine)
    return lost, FACTORY
