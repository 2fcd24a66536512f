"""The keys that vouch for releases, each in a file of its own with mode 0600; never on the order server.

Directory
    root.pem, root.pub.der            the root key, and its public half for terminals and servers
    release-<epoch>.pem               a release key with the root's certificate for it, in one file
    rotation-<epoch>.cbor             what leads terminals from the key before to this one

A terminal that knows a release key takes another one only with a rotation that the old key, the new key and
the root have signed. The root alone is enough for a terminal that knows none yet. The rotations are a chain:
with one of them lost, terminals that know a key before it are never led on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from server.devices import keyfiles
from server.devices.keyfiles import KeyFileError
from server.releases import together
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
    """The files ``make`` or ``rotate`` wrote; ``finished`` says that an earlier call had begun them."""

    files: tuple[Path, ...]
    epoch: int
    finished: bool = False


def make(folder: Path, passphrase: bytes | None) -> Made:
    """Make a root key and the first release key in `folder`, or what an interrupted call has left out.

    Raises: KeyFileError, OSError.
    """
    interrupted = _finish(folder, passphrase)
    if interrupted is not None:
        return interrupted
    root_path = folder / ROOT_FILE
    has_root, has_release = root_path.exists(), bool(_epochs(folder))
    if has_root and has_release:
        raise KeyFileError(
            "exists",
            root_path,
            f"There is a root key {root_path} already: --rotate makes the next release key.",
        )
    if has_release:
        raise KeyFileError(
            "missing",
            root_path,
            f"There are release keys in {folder} and no root key: put {ROOT_FILE} back or name a new folder.",
        )
    files: dict[str, bytes] = {}
    if has_root:  # a set that was never completed
        root = load_root(root_path, passphrase)
    else:
        root_key = keyfiles.generate(BITS)
        root = RsaSigner(root_key)
        files[ROOT_FILE] = keyfiles.to_pem(root_key, passphrase)
    if not has_root or not (folder / ROOT_PUBLIC_FILE).exists():
        files[ROOT_PUBLIC_FILE] = root.spki
    files[_release_name(1)] = _new_release(root, 1, passphrase)[1]
    return Made(together.write(folder, files), 1, finished=has_root)


def rotate(folder: Path, passphrase: bytes | None, root_path: Path | None = None) -> Made:
    """Make the next release key in `folder` and the rotation that leads to it; the chain must be whole.

    Where an earlier call has left a rotation out whose keys are both there, it is made and nothing else.
    Raises: KeyFileError, OSError.
    """
    interrupted = _finish(folder, passphrase)
    if interrupted is not None:
        return interrupted
    old = load_release(newest_release(folder), passphrase)
    root = load_root(root_path or folder / ROOT_FILE, passphrase)
    public = VerifyKey(root.spki, BITS)
    left_out = _missing_rotations(folder, old.epoch, public, passphrase)
    if left_out:
        return Made(together.write(folder, left_out), old.epoch, finished=True)
    key, pem = _new_release(root, old.epoch + 1, passphrase)
    files = {_release_name(key.epoch): pem, _rotation_name(key.epoch): _rotation(old, key, public)}
    return Made(together.write(folder, files), key.epoch)


def _finish(folder: Path, passphrase: bytes | None) -> Made | None:
    """Move what an interrupted call has made to its place, if the passphrase is that call's."""
    names = together.waiting(folder)
    for name in names:
        if _RELEASE_FILE.fullmatch(name):
            load_release(folder / together.READY / name, passphrase)
    moved = together.recover(folder) if folder.is_dir() else ()
    return Made(moved, max(_epochs(folder)), finished=True) if moved else None


def _missing_rotations(
    folder: Path, newest: int, root: VerifyKey, passphrase: bytes | None
) -> dict[str, bytes]:
    """The rotations up to the newest key that are not there, by name, made again from the keys.

    Raises: KeyFileError where one of these is missing too, or a rotation is another one's.
    """
    made = {}
    for epoch in range(2, newest + 1):
        path = folder / _rotation_name(epoch)
        if path.exists():
            _check_rotation(path, epoch, root)
            continue
        keys = [folder / _release_name(number) for number in (epoch - 1, epoch)]
        if not all(key.exists() for key in keys):
            raise KeyFileError(
                "missing",
                path,
                f"The rotation {path} is missing, and terminals that know a key before it cannot be led on "
                f"without it: restore it, or both {keys[0].name} and {keys[1].name}, from where the keys are "
                f"kept.",
            )
        old, new = (load_release(key, passphrase) for key in keys)
        made[path.name] = _rotation(old, new, root)
    return made


def _check_rotation(path: Path, epoch: int, root: VerifyKey) -> None:
    try:
        before, after = Rotation.decode(path.read_bytes()).open(root)
    except Refusal as refusal:
        raise KeyFileError(
            "corrupt", path, f"{path} is not a rotation under this root key ({refusal.detail}): {_RESTORE}."
        ) from None
    if (before.epoch, after.epoch) != (epoch - 1, epoch):
        raise KeyFileError(
            "corrupt",
            path,
            f"{path} leads from the key of epoch {before.epoch} to that of {after.epoch}: {_RESTORE}.",
        )


def _rotation(old: ReleaseKey, new: ReleaseKey, root: VerifyKey) -> bytes:
    return Rotation.make(old.signer, old.certificate, new.signer, new.certificate, root).encode()


def _rotation_name(epoch: int) -> str:
    return f"rotation-{epoch}.cbor"


def _release_name(epoch: int) -> str:
    return f"release-{epoch}.pem"


def _new_release(root: RsaSigner, epoch: int, passphrase: bytes | None) -> tuple[ReleaseKey, bytes]:
    """A new release key, and the contents of its file."""
    key = keyfiles.generate(BITS)
    signer = RsaSigner(key)
    certificate = certify(root, signer.spki, epoch)
    content = keyfiles.with_certificate(keyfiles.to_pem(key, passphrase), certificate)
    return ReleaseKey(signer, certificate, epoch), content


def _epochs(folder: Path) -> dict[int, Path]:
    """The release key files in a folder by epoch."""
    return {int(match[1]): path for path in _files(folder) if (match := _RELEASE_FILE.fullmatch(path.name))}


def newest_release(folder: Path) -> Path:
    """The release key file of the highest epoch in `folder`. Raises: KeyFileError("missing")."""
    found = _epochs(folder)
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
