"""Which image a bundle was built for: its number is in the manifest, its digest in a file of the bundle.

A bundle overlays modules of one image. Two images that share a number would let a bundle of the one be
installed over the other; the digest tells them apart, on the server when a release is published and on a
terminal before it installs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from server.wire.errors import Refusal, RefusalCode

IMAGE_FILE = "assets/image.txt"
MODULES_FILE = "assets/modules.txt"
_LINE = re.compile(rb"([0-9a-f]{64})\n")


def image_digest(sources: Mapping[str, bytes]) -> bytes:
    """Return the digest of an image's application: SHA-256 over every module's path and SHA-256, sorted."""
    lines = [f"{path} {sha256(sources[path]).hexdigest()}\n" for path in sorted(sources)]
    return sha256("".join(lines).encode()).digest()


def image_file(digest: bytes) -> bytes:
    """Return the file that names the image in a bundle."""
    return f"{digest.hex()}\n".encode()


def digest_in(files: Mapping[str, bytes]) -> bytes | None:
    """Return the digest of the image a bundle's files name, None if they name none and need not.

    Raises: Refusal(BAD_RELEASE, NO_IMAGE_NAMED).
    """
    content = files.get(IMAGE_FILE)
    if content is not None:
        return _parse(content)
    if MODULES_FILE in files:
        raise Refusal(
            RefusalCode.NO_IMAGE_NAMED,
            f"the bundle takes modules from an image ({MODULES_FILE}) and does not say which ({IMAGE_FILE})",
        )
    return None


def _parse(content: bytes) -> bytes:
    found = _LINE.fullmatch(content)
    if found is None:
        raise Refusal(RefusalCode.BAD_RELEASE, f"{IMAGE_FILE} is not one line with a SHA-256 in hex")
    return bytes.fromhex(found[1].decode())
