"""What a terminal says about its update (``ota-state`` in the contract), in words an operator can act on."""

from __future__ import annotations

SLOTS = ("a", "b", "factory", "image ota_0", "image ota_1")
STATES = ("confirmed", "downloading", "verified", "waiting for its restart", "on trial", "rolled back")
TRIES_SPENT, STARTS_SPENT, SLOT_BAD, NO_SPACE, BAD_BYTES, BAD_MANIFEST = 1, 2, 3, 8, 9, 14
QUARANTINED, FELL_BACK, IMAGE_REFUSED, WRONG_CODE = 10, 18, 19, 25
FLASH_FAILS, CRASH_LOOP = 27, 28
REASONS = (
    "",
    "the new release was started three times and did not prove itself",
    "the new release was started ten times, mostly without power lasting, and did not prove itself",
    "the release's files changed in flash before it was started: it is fetched again",
    "the running release's files had changed: the previous release runs again",
    "neither slot holds a whole release: the factory application runs",
    "the record of its updates could not be read: it begins anew",
    "an operator gave the update up",
    "there is no room for the release in its flash",
    "what arrived or was installed is not what the manifest says",
    "this release failed here before; `release release-quarantine` lets it try again",
    "the release is below the version floor an earlier one has set",
    "the release is not signed by a release key that the root key vouches for",
    "the release is for other hardware, another group or a firmware image of another number",
    "the release is signed, but its paths or sizes are not allowed",
    "the release runs there already",
    "the offer is not the answer to the terminal's question: old, or meant for another one",
    "the release key is older than one the terminal knows, or nobody it trusts has named it",
    "the new firmware image did not prove itself in its one start: the bootloader went back",
    "the chip does not start the firmware image",
    "what runs is not the firmware image on record: it was flashed by cable",
    "the firmware image on record is damaged: the bootloader took the other one",
    "the bootloader's choice could not be stored, or did not read back",
    "not now: another update of this terminal comes first",
    "the release was made over another firmware image of the same number, or names none",
    "a compiled module of the release is for another processor or another MicroPython",
    "the release that ran was made over another firmware image: the factory application runs",
    "the release's files changed in flash again and again: the terminal's flash may be failing",
    "the release had proved itself, and then did not last five starts in a row: an older one runs",
    "a file operation of the terminal failed, its console names it; with the next offer it begins anew",
)


def slot(number: int) -> str:
    """The slot's name."""
    return SLOTS[number] if number < len(SLOTS) else f"slot {number}"


def state(number: int) -> str:
    """What the terminal is doing."""
    return STATES[number] if number < len(STATES) else f"state {number}"


def reason(number: int) -> str:
    """Why it does not run, or did not take, what it was offered; "" for no reason."""
    return REASONS[number] if number < len(REASONS) else f"reason {number} (unknown to this server)"


def version(number: int) -> str:
    """A release number as people write it: major.minor.patch."""
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


def percent(share: int) -> str:
    """A share in hundredths of a percent as people write it: 12.5 %."""
    return f"{share / 100:g} %"
