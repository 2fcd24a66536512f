"""Bundles on disk: one directory with the manifest, the data and, once signed, the offer-frame.

Whatever is read is verified.
"""

import os
from pathlib import Path

from server.releases.bundle import Bundle, Draft, check_contents, check_data, open_bundle, split
from server.releases.rules import IMAGE_MAX_BYTES
from server.wire.errors import Refusal, RefusalCode
from server.wire.rsa import VerifyKey
from server.wire.updates import OFFER_MAX_BYTES, Manifest

OFFER_FILE = "offer.cbor"
DATA_FILE = "bundle.bin"
MANIFEST_FILE = "manifest.cbor"


def save_draft(draft: Draft, directory: Path) -> None:
    """Write an unsigned bundle into `directory` (made if missing); an older one's offer goes.

    Raises: OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / OFFER_FILE).unlink(missing_ok=True)
    _write(directory / DATA_FILE, draft.data)
    _write(directory / MANIFEST_FILE, draft.manifest.payload())


def load_draft(directory: Path) -> Draft:
    """Return the unsigned bundle in `directory`.

    Raises: Refusal, BAD_RELEASE where it is not whole, WRONG_CODE or NO_IMAGE_NAMED where none would run it.
    """
    manifest = Manifest.from_payload(_read(directory / MANIFEST_FILE, OFFER_MAX_BYTES))
    data = _read(directory / DATA_FILE, IMAGE_MAX_BYTES)
    check_data(manifest, data)
    check_contents(split(manifest, data), manifest.hardware, manifest.chunk_size)
    return Draft(manifest, data)


def save(bundle: Bundle, directory: Path) -> None:
    """Write a bundle into `directory` (made if missing); the offer comes last and makes it complete.

    Raises: OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / DATA_FILE, bundle.data)
    _write(directory / OFFER_FILE, bundle.offer.encode())


def load(directory: Path, root: VerifyKey) -> Bundle:
    """Return the bundle in `directory` after checking every signature and hash against `root`.

    Raises: Refusal, BAD_RELEASE where a file is missing or too long; its detail is a sentence.
    """
    return open_bundle(*read_raw(directory), root)


def read_raw(directory: Path) -> tuple[bytes, bytes]:
    """Return (offer-frame, data) of the bundle in `directory`, not verified. Raises: Refusal(BAD_RELEASE)."""
    return _read(directory / OFFER_FILE, OFFER_MAX_BYTES), _read(directory / DATA_FILE, IMAGE_MAX_BYTES)


def collect(source: Path) -> dict[str, bytes]:
    """Return the files under `source` by their relative POSIX path, sorted, links not followed.

    Raises: Refusal(BAD_RELEASE) where there is nothing, OSError.
    """
    paths = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    if not files:
        raise Refusal(RefusalCode.BAD_RELEASE, f"there are no files in {source}")
    return files


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Refusal(RefusalCode.BAD_RELEASE, f"{path} cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise Refusal(RefusalCode.BAD_RELEASE, f"{path} is longer than {max_bytes} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
