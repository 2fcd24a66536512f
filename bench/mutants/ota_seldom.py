"""Planted bugs that show in seldom things only: a long download, a second failure, rot, another image."""

from __future__ import annotations

from bench.mutants.planted import change

SELDOM = (
    change(
        "second run of chunk hashes overwrites the first",
        "ota/install.py",
        "long",
        ('"ab" if self.next_run else "wb"', '"wb"'),
    ),
    change(
        "resume begins anew",
        "ota/install.py",
        "long",
        ("        self.next_chunk = min(position, self.manifest.size) // self.manifest.chunk_size\n", ""),
    ),
    change(
        "cut while reading back fetches everything again",
        "ota/install.py",
        "long",
        ("        if not is_complete and not (yield", "        if not (yield"),
    ),
    change(
        "chunk not checked on arrival",
        "ota/install.py",
        "content=random",
        ("            if hashlib.sha256(data).digest() != file.read(_HASH_BYTES):", "            if False:"),
    ),
    change(
        "number of the image not judged at the start",
        "ota/install.py",
        "flashed",
        (
            "    in_range = manifest.firmware_min <= image_version <= manifest.firmware_max\n",
            "    in_range = True\n",
        ),
    ),
    change(
        "digest of the image not judged at the start",
        "ota/install.py",
        "flashed-alike",
        ("    return in_range and fits.over_image(manifest, image_digest)", "    return in_range"),
    ),
    change(
        "given up, and its slot counts as the bundle before",
        "ota/states.py",
        "content=random",
        ("_move(state, _CANCEL, reason=reason, **_GIVEN_UP)", "_move(state, _CANCEL, reason=reason)"),
    ),
    change(
        "floor set, not raised",
        "ota/states.py",
        "lower-floor",
        ("        floor=max(state.floor, state.other_floor),", "        floor=state.other_floor,"),
    ),
    change(
        "half a download counts as the bundle before",
        "ota/states.py",
        "slots",
        ("        state.state == CONFIRMED\n        and state.other_hash", "        state.other_hash"),
    ),
    change(
        "bundle before forgotten at the confirmation",
        "ota/states.py",
        "slots",
        (
            "        other_hash=state.hash,\n        other_floor=0,",
            "        other_hash=NO_HASH,\n        other_floor=0,",
        ),
    ),
    change(
        "quarantine forgotten with both slots",
        "ota/states.py",
        "slots",
        (
            "factory(BOTH_BAD).but(floor=state.floor, quarantine=state.quarantine)",
            "factory(BOTH_BAD).but(floor=state.floor)",
        ),
    ),
    change(
        "older quarantines forgotten",
        "ota/states.py",
        "worse",
        (
            "        quarantine=newest + tuple(state.quarantine)[:3],\n        reason=reason,",
            "        quarantine=newest + (NO_PREFIX,) * 3,\n        reason=reason,",
        ),
    ),
    change(
        "running bundle installed again",
        "ota/states.py",
        "content=already-there",
        ("    if digest == state.hash:", "    if False:"),
    ),
    change(
        "a fourth try", "ota/states.py", "late", ("    if tries >= MAX_TRIES:", "    if tries > MAX_TRIES:")
    ),
    change("two tries only", "ota/states.py", "late", ("MAX_TRIES = const(3)", "MAX_TRIES = const(2)")),
    change(
        "an eleventh start",
        "ota/states.py",
        "brownout",
        ("    if state.starts >= MAX_STARTS:", "    if state.starts > MAX_STARTS:"),
    ),
    change(
        "version in the bundle not compared",
        "ota/agent.py",
        "liar",
        ("        if state.other_version != self._version:", "        if False:"),
    ),
    change(
        "rollback counts as reported when nobody was told",
        "ota/agent.py",
        "late",
        ("== states.ROLLED_BACK and self._tell():", "== states.ROLLED_BACK and (self._tell() or True):"),
    ),
)
