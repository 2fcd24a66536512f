"""The signed bundles the campaign plays with: releases to be installed, and offers that must be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random

import cbor2

from bench import releases
from bench.boards.flashmap import SECTOR_BYTES
from bench.campaign import rotations
from bench.campaign import signer as keys
from server.releases.bundle import Bundle, Target, build_bundle, certify
from server.wire.rsa import Signer
from server.wire.updates import BundleFile

IMAGE = releases.image_release()
CHUNK_BYTES = 1024
# Releases the terminal took before: as many as make the control record wrap round in the golden update.
SERVED_BEFORE = ("one", "two", "three", "four", "five", "old")
NEW, OTHER, BAD, LONG, LOWER_FLOOR, LIAR, WORSE = (
    "new", "other", "bad", "long", "lower-floor", "liar", "worse",
)  # fmt: skip
_OVERSIZED_BYTES = 600_000
# Made over another image: with another number, or with other contents. Nobody offers them here.
OTHER_RANGE, OTHER_DIGEST = "other-range", "other-digest"
_DO_NOT_START = (BAD, WORSE)
_FLOOR_BELOW = 2  # the floor a release sets lies this far below it
_PICTURE_BYTES = 6000
_LONG_PICTURE_BYTES = 9500  # with small chunks: more than one run of 32 chunk hashes
_SMALL_CHUNK_BYTES = 256
_CRASHES = "VERSION = {version}\nraise ValueError('this release does not start')\n"


@dataclass(frozen=True)
class Release:
    """A bundle as the campaign knows it.

    `says`: the number its own code gives, which may be a lie; `files`: fingerprint of what must lie in its
    slot; `sector`: the first flash sector of its picture, as it lies there; `starts`: whether it can run.
    """

    name: str
    version: int
    says: int
    floor: int
    digest: bytes
    files: str
    size: int
    chunks: int
    sector: bytes
    starts: bool


def installable(seed: int, hardware: str) -> dict[str, Bundle]:
    """Every release that is offered in earnest, by name; the same seed makes the same bytes."""
    noise = Random(seed)
    names = (*SERVED_BEFORE, NEW, OTHER, BAD, LONG, LOWER_FLOOR, LIAR, WORSE)
    made = {}
    for number, name in enumerate(names, start=1):
        version = IMAGE + number
        changed = {"terminal.version": _CRASHES.format(version=version)} if name in _DO_NOT_START else None
        sources = releases.versioned(_says(name, version), changed)
        picture = noise.randbytes(_LONG_PICTURE_BYTES if name == LONG else _PICTURE_BYTES)
        content = releases.files(sources, hardware, {f"{name}.bin": picture})
        floor = 0 if name == LOWER_FLOOR else version - _FLOOR_BELOW
        chunk_bytes = _SMALL_CHUNK_BYTES if name == LONG else CHUNK_BYTES
        made[name] = make(content, version, floor, hardware, chunk_bytes=chunk_bytes)
    return made


def foreign(seed: int, hardware: str) -> dict[str, Bundle]:
    """Releases for terminals with another image, by name; a terminal has one when its image was changed."""
    noise = Random(f"foreign {seed}")
    made = {}
    for number, name in enumerate((OTHER_RANGE, OTHER_DIGEST), start=64):
        version = IMAGE + number
        image = bytes(sha256().digest_size) if name == OTHER_DIGEST else None
        picture = {f"{name}.bin": noise.randbytes(_PICTURE_BYTES)}
        content = releases.files(releases.versioned(version), hardware, picture, image)
        shift = 1 if name == OTHER_RANGE else 0
        made[name] = make(content, version, 0, hardware, image=IMAGE + shift)
    return made


def _says(name: str, version: int) -> int:
    return version + 100 if name == LIAR else version


def described(name: str, bundle: Bundle) -> Release:
    """What the campaign has to know of a release."""
    lines = sorted(f"{path} {sha256(body).hexdigest()}" for path, body in bundle.files.items())
    m = bundle.manifest
    return Release(
        name,
        m.version,
        _says(name, m.version),
        m.floor,
        bundle.hash,
        sha256("\n".join(lines).encode()).hexdigest()[:16],
        m.size,
        -(-m.size // m.chunk_size),
        bundle.files[f"assets/{name}.bin"][:SECTOR_BYTES],
        name not in _DO_NOT_START,
    )


def hostile(bundles: Mapping[str, Bundle], hardware: str) -> dict[str, Bundle]:
    """Offers that must be refused: for somebody else, too old, by the wrong hand, or of what runs already."""
    new = bundles[NEW].manifest
    content = bundles[NEW].files
    evil, release = keys.fixture("evil-root"), keys.fixture("release")
    target = Target(hardware, new.version, new.floor, IMAGE, IMAGE)
    honest = certify(keys.fixture("root"), release.spki)
    successor = keys.fixture("release-2")
    unnamed = certify(keys.fixture("root"), successor.spki, rotations.NEW_EPOCH)  # no rotation leads to it
    return {
        "wrong-chip": make(content, new.version, new.floor, hardware="esp32"),
        "wrong-site": make(content, new.version, new.floor, hardware, "elsewhere"),
        "wrong-image": build_bundle(
            content, replace(target, firmware_minimum=IMAGE + 1, firmware_maximum=IMAGE + 9), release, honest
        ),
        "below-floor": make(content, bundles["old"].manifest.floor - 1, 0, hardware),
        "already-there": bundles["old"],
        "forged-certificate": build_bundle(
            content, target, release, certify(evil, release.spki), CHUNK_BYTES
        ),
        "forged-manifest": build_bundle(content, target, evil, honest, CHUNK_BYTES),
        "altered-manifest": _altered(bundles[NEW]),
        "unnamed-key": build_bundle(content, target, successor, unnamed, CHUNK_BYTES),
        "oversized-bundle": _oversized(bundles[NEW], release),
    }


def _altered(honest: Bundle) -> Bundle:
    """A manifest whose floor somebody changed after it was signed."""
    protected, unprotected, _, signature = cbor2.loads(honest.offer.manifest_frame).value
    payload = replace(honest.manifest, floor=honest.manifest.version).payload()
    frame = cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected, payload, signature]))
    return replace(honest, offer=replace(honest.offer, manifest_frame=frame))


def _oversized(honest: Bundle, release: Signer) -> Bundle:
    """A signed manifest whose one file is larger than a slot may be."""
    size = _OVERSIZED_BYTES
    file = BundleFile("assets/huge.bin", size, sha256(b"").digest())
    manifest = replace(honest.manifest, size=size, files=(file,))
    offer = replace(honest.offer, manifest_frame=manifest.seal(release))
    return Bundle(offer, manifest, honest.data)


def make(
    content: Mapping[str, bytes],
    version: int,
    floor: int,
    hardware: str,
    group: str = "",
    chunk_bytes: int = CHUNK_BYTES,
    image: int = IMAGE,
) -> Bundle:
    """Sign files as a release for the image at hand, or for the one with another number."""
    signer = keys.fixture("release")
    certificate = certify(keys.fixture("root"), signer.spki)
    target = Target(hardware, version, floor, image, image, group)
    return build_bundle(content, target, signer, certificate, chunk_bytes)
