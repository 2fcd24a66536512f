"""What anybody can check about a bundle with the root's public key alone, step by step and by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from server.releases import files, words
from server.releases.bundle import Bundle, check_data
from server.releases.code import check_code
from server.releases.images import digest_in
from server.releases.rules import check_paths, check_size, most_bytes
from server.wire import aad
from server.wire.cose import verify_sign1
from server.wire.errors import Refusal
from server.wire.frames import RELEASE, Certificate
from server.wire.rsa import VerifyKey
from server.wire.updates import OFFER_MAX_BYTES, Manifest, Offer

T = TypeVar("T")


@dataclass
class Findings:
    """The checks that passed, in order; the one that failed, if any, with its reason; and what is known."""

    passed: list[str] = field(default_factory=list)
    failed: str = ""
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None


class _Stop(Exception):
    pass


def examine(directory: Path, root: VerifyKey) -> Findings:
    """Check a bundle on disk as a terminal and a server do; stops at the first check that fails."""
    found = Findings(facts={"root_key": root.kid.hex()})
    try:
        _examine(directory, root, found)
    except _Stop:
        found.bundle = None
    return found


def _examine(directory: Path, root: VerifyKey, found: Findings) -> None:
    offer_frame, data = _step(found, "files readable", lambda: files.read_raw(directory))
    offer = _step(found, "offer well-formed", lambda: Offer.decode(offer_frame))
    certificate = _step(
        found,
        "release key certified by the root",
        lambda: Certificate.open(offer.certificate, root, "", RELEASE),
    )
    found.facts |= {"release_key": certificate.kid.hex(), "release_key_epoch": certificate.epoch}
    payload = _step(
        found,
        "manifest signed by the release key",
        lambda: verify_sign1(offer.manifest_frame, certificate.verify_key(), aad.manifest(), OFFER_MAX_BYTES),
    )
    manifest = _step(found, "manifest well-formed", lambda: Manifest.from_payload(payload))
    bundle = Bundle(offer, manifest, data)
    found.facts |= _facts(bundle)
    paths = [file.path for file in manifest.files]
    _step(found, "paths allowed", lambda: check_paths(paths))
    _step(found, "size allowed", lambda: check_size(manifest.size, manifest.chunk_size, most_bytes(paths)))
    _step(found, "files and chunks as the manifest says", lambda: check_data(manifest, data))
    _step(found, "modules compiled for this hardware", lambda: check_code(bundle.files, manifest.hardware))
    digest = _step(found, "image named", lambda: digest_in(bundle.files))
    found.facts["image_digest"] = digest.hex() if digest else None
    found.bundle = bundle


def _step(found: Findings, name: str, check: Callable[[], T]) -> T:
    try:
        value = check()
    except Refusal as refusal:
        found.failed, found.why = name, f"{refusal.detail} ({refusal.code})"
        raise _Stop from None
    found.passed.append(name)
    return value


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": bundle.hash.hex(),
        "reference": bundle.hash[:8].hex(),
        "hardware": manifest.hardware,
        "group": manifest.group,
        "version": words.version(manifest.version),
        "floor": words.version(manifest.floor),
        "image": [words.version(manifest.firmware_minimum), words.version(manifest.firmware_maximum)],
        "bytes": manifest.size,
        "chunk_bytes": manifest.chunk_size,
        "files": [[file.path, file.size, file.hash.hex()] for file in manifest.files],
    }
