"""What every terminal demands of a bundle, judged before it is signed.

A terminal judges the same on its own and does not trust this; here a mistake is found in the office. The
rules keep a bundle from shadowing what the firmware image provides and from changing which root key is
trusted.
"""

import re
from collections.abc import Iterable

from server.wire.errors import Refusal, RefusalCode

BUNDLE_MAX_BYTES = 512 * 1024
CHUNKS_MAX = 1024
IMAGE_PATH = "image/micropython.bin"
IMAGE_MAX_BYTES = 4 * 1024 * 1024  # what 1024 chunks of a flash sector can carry; a terminal has less room
PATH_MAX_BYTES = 64
_PATH = re.compile(r"(?:terminal|assets)(?:/[a-z0-9_-][a-z0-9_.-]*){1,3}\.(?:py|mpy|json|txt|bin)")
_RESERVED = {"terminal/trust"}


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths no terminal installs.

    They are below terminal/ or assets/, of lower-case letters, digits, "_", "-" and ".", at most 64 bytes and
    four parts; one module has one form (.py, .mpy or a folder), and no name is a file's and a folder's;
    terminal/trust belongs to the image. A firmware image is a bundle of one file, IMAGE_PATH.
    Raises: Refusal(BAD_RELEASE).
    """
    paths = list(paths)
    if paths == [IMAGE_PATH]:
        return
    stems: set[str] = set()
    folders = {path.rsplit("/", depth)[0] for path in paths for depth in range(1, path.count("/") + 1)}
    for path in paths:
        if len(path) > PATH_MAX_BYTES or _PATH.fullmatch(path) is None:
            raise Refusal(RefusalCode.BAD_RELEASE, f"no terminal installs a file at {path!r}")
        stem = path.rsplit(".", 1)[0]
        if stem in _RESERVED:
            raise Refusal(RefusalCode.BAD_RELEASE, f"{path} belongs to the firmware image, not to a bundle")
        if stem in stems:
            raise Refusal(RefusalCode.BAD_RELEASE, f"{stem} is in the bundle in two forms")
        if path in folders:
            raise Refusal(RefusalCode.BAD_RELEASE, f"{path} is a file and a folder of the bundle")
        if stem in folders and path.endswith((".py", ".mpy")):
            raise Refusal(RefusalCode.BAD_RELEASE, f"{path} lies beside a folder {stem}, which hides it")
        stems.add(stem)


def most_bytes(paths: Iterable[str]) -> int:
    """Return how many bytes a bundle of these paths may have: a firmware image more than an application."""
    return IMAGE_MAX_BYTES if list(paths) == [IMAGE_PATH] else BUNDLE_MAX_BYTES


def check_size(size_bytes: int, chunk_bytes: int, max_bytes: int = BUNDLE_MAX_BYTES) -> None:
    """Refuse a bundle that is empty, too large or over 1024 chunks. Raises: Refusal(BAD_RELEASE)."""
    if not 0 < size_bytes <= max_bytes:
        raise Refusal(RefusalCode.BAD_RELEASE, f"a bundle of {size_bytes} bytes is empty or over {max_bytes}")
    if -(-size_bytes // chunk_bytes) > CHUNKS_MAX:
        raise Refusal(RefusalCode.BAD_RELEASE, f"a bundle has at most {CHUNKS_MAX} chunks: use larger ones")
