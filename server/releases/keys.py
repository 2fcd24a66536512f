"""The keys that vouch for releases, each in a file of its own with mode 0600; never on the order server.

Directory
    root.pem, root.pub.der            the root key, and its public half for terminals and servers
    release-<epoch>.pem               a release key with the root's certificate for it, in one file
    rotation-<epoch>.cbor             what leads terminals from the key before to this one

A terminal that knows a release key takes another one only with a rotation that the old key, the new key and
the root have signed. The root alone is enough for a terminal that knows none yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from server.devices import keyfiles
from server.devices.keyfiles import KeyFileError
from server.releases.bundle import certify
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import CERTIFICATE_MAX_BYTES, RELEASE, Certificate
from server.wire.rotation import Rotation
from server.wire.rsa import RsaSigner, VerifyKey

BITS = 3072
ROOT_FILE, ROOT_PUBLIC_FILE = "root.pem", "root.pub.der"
_RELEASE_FILE = re.compile(r"release-(\d{1,9})\.pem")
_RESTORE = "restore it from where the keys are kept, or name another with --key"


@dataclass(frozen=True)
class ReleaseKey:
    """A release key with its certificate, as it lies in a file."""

    signer: RsaSigner
    certificate: bytes
    epoch: int


@dataclass(frozen=True)
class Made:
    """The files ``make`` or ``rotate`` wrote."""

    files: tuple[Path, ...]
    epoch: int


def make(folder: Path, passphrase: bytes | None) -> Made:
    """Make a root key and the first release key in `folder`. Raises: KeyFileError("exists"), OSError."""
    root_path = folder / ROOT_FILE
    if root_path.exists():
        raise KeyFileError(
            "exists",
            root_path,
            f"There is a root key {root_path} already: --rotate makes the next release key.",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root_key = keyfiles.generate(BITS)
    root = RsaSigner(root_key)
    keyfiles.write_private(root_path, keyfiles.to_pem(root_key, passphrase))
    public = folder / ROOT_PUBLIC_FILE
    public.write_bytes(root.spki)
    _, release = _write_release(folder, root, 1, passphrase)
    return Made((root_path, public, release), 1)


def rotate(folder: Path, passphrase: bytes | None, root_path: Path | None = None) -> Made:
    """Make the next release key in `folder` and the rotation that leads to it.

    Raises: KeyFileError, OSError.
    """
    newest = newest_release(folder)
    old = load_release(newest, passphrase)
    root = load_root(root_path or folder / ROOT_FILE, passphrase)
    key, path = _write_release(folder, root, old.epoch + 1, passphrase)
    made = Rotation.make(old.signer, old.certificate, key.signer, key.certificate, VerifyKey(root.spki, BITS))
    statement = folder / f"rotation-{key.epoch}.cbor"
    statement.write_bytes(made.encode())
    return Made((path, statement), key.epoch)


def _write_release(
    folder: Path, root: RsaSigner, epoch: int, passphrase: bytes | None
) -> tuple[ReleaseKey, Path]:
    key = keyfiles.generate(BITS)
    signer = RsaSigner(key)
    certificate = certify(root, signer.spki, epoch)
    path = folder / f"release-{epoch}.pem"
    keyfiles.write_private(path, keyfiles.with_certificate(keyfiles.to_pem(key, passphrase), certificate))
    return ReleaseKey(signer, certificate, epoch), path


def newest_release(folder: Path) -> Path:
    """The release key file of the highest epoch in `folder`. Raises: KeyFileError("missing")."""
    found = {int(match[1]): path for path in _files(folder) if (match := _RELEASE_FILE.fullmatch(path.name))}
    if not found:
        raise KeyFileError(
            "missing",
            folder,
            f"There is no release key in {folder}: run `tableside release keygen {folder}`.",
        )
    return found[max(found)]


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def load_root(path: Path, passphrase: bytes | None) -> RsaSigner:
    """Return the root key in a PEM file. Raises: KeyFileError."""
    data = keyfiles.read(path, _RESTORE)
    return RsaSigner(keyfiles.parse_pem(data, BITS, path, _step(data, passphrase), passphrase))


def load_release(path: Path, passphrase: bytes | None, certificate: bytes | None = None) -> ReleaseKey:
    """Return the release key in a file that ``make`` or ``rotate`` wrote.

    `certificate`: of a key whose file holds none. Raises: KeyFileError.
    """
    data = keyfiles.read(path, _RESTORE)
    step = _step(data, passphrase)
    if certificate is None:
        data, certificate = keyfiles.split_certificate(data, path, _RESTORE)
    signer = RsaSigner(keyfiles.parse_pem(data, BITS, path, step, passphrase))
    claimed = _claimed(certificate)
    if claimed is None or claimed.spki != signer.spki:
        raise KeyFileError("corrupt", path, f"The certificate in {path} is for another key: {_RESTORE}.")
    return ReleaseKey(signer, certificate, claimed.epoch)


def _step(data: bytes, passphrase: bytes | None) -> str:
    if not keyfiles.is_encrypted(data):
        return _RESTORE
    return (
        "the passphrase is wrong"
        if passphrase
        else "it needs a passphrase: name its file with --passphrase-file"
    )


def _claimed(certificate: bytes) -> Certificate | None:
    """What a certificate says, not verified: terminals and servers do that with the root's public key."""
    try:
        return Certificate.claimed(certificate, RELEASE)
    except Refusal:
        return None


def load_public(path: Path) -> VerifyKey:
    """Return the root's public key in a DER file. Raises: KeyFileError, Refusal(BAD_KEY)."""
    data = keyfiles.read(path, "give the root's public key, DER SubjectPublicKeyInfo", private=False)
    if len(data) > CERTIFICATE_MAX_BYTES:
        raise Refusal(RefusalCode.BAD_KEY, f"{path} is not a DER public key")
    return VerifyKey(data, BITS)
