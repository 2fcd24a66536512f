"""Which image a bundle was built for: its number is in the manifest, its digest in a file of the bundle.

A bundle overlays modules of one image. Two images that share a number would let a bundle of the one be
installed over the other; the digest tells them apart, on the server when a release is published and on a
terminal before it installs.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from server.releases.bundle import Bundle
from server.wire.errors import Refusal, RefusalCode

IMAGE_FILE = "assets/image.txt"
_DIGEST_CHARACTERS = 64


def image_digest(sources: Mapping[str, bytes]) -> bytes:
    """Return the digest of an image's application: SHA-256 over every module's path and SHA-256, sorted."""
    lines = [f"{path} {sha256(sources[path]).hexdigest()}\n" for path in sorted(sources)]
    return sha256("".join(lines).encode()).digest()


def image_file(digest: bytes) -> bytes:
    """Return the file that names the image in a bundle."""
    return f"{digest.hex()}\n".encode()


def digest_in(bundle: Bundle) -> bytes | None:
    """Return the digest of the image a bundle names, None if it names none. Raises: Refusal(BAD_RELEASE)."""
    at = 0
    for file in bundle.manifest.files:
        if file.path == IMAGE_FILE:
            return _parse(bundle.data[at : at + file.size])
        at += file.size
    return None


def _parse(content: bytes) -> bytes:
    text = content.decode("ascii", "replace").strip()
    if len(text) != _DIGEST_CHARACTERS or not set(text) <= set("0123456789abcdef"):
        raise Refusal(RefusalCode.BAD_RELEASE, f"{IMAGE_FILE} is not a SHA-256 in hex")
    return bytes.fromhex(text)
