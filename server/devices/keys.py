"""The server's own keys: server-sign with its certificate, and the daily decryption key.

Directory (mode 0700)
    root.spki.der                     public half of the root key that certifies this site
    server-sign.pem                   private key and certificate, one file so that they change together
    decrypt-<unix time>-<kid>.pem     decryption keys, the newest is the current one

The root's private half is only borrowed for certifying and never stored here.
"""

import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from server.devices import keyfiles
from server.devices.keyfiles import KeyFileError
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SERVER_SIGN, Certificate
from server.wire.rsa import RsaSigner, Signer, VerifyKey, kid_of, spki_of

DECRYPT_LIFE_S = 24 * 3600
DECRYPT_GRACE_S = 15 * 60
_ROOT = "root.spki.der"
_SIGN = "server-sign.pem"
_DECRYPT = re.compile(r"decrypt-(\d{1,15})-([0-9a-f]{16})\.pem")
_RESTORE = "restore the keys directory from a backup, or make a new one with `tableside server keys init`"
_RENEW = "delete this file; terminals then shake hands again with a new key"


@dataclass(frozen=True)
class _DecryptKey:
    created: int
    spki: bytes
    kid: bytes
    key: RSAPrivateKey
    path: Path


class KeyStore:
    """Keys of one site in one directory. Safe to use from several threads."""

    def __init__(self, directory: Path, site: str) -> None:
        """Open an existing key directory. Raises: KeyFileError, naming the file and the next step."""
        self._directory = directory
        self._site = site
        self._lock = threading.Lock()
        self._root = self._load_root()
        self._load_sign()
        self._decrypt = self._load_decrypt()

    @classmethod
    def create(cls, directory: Path, site: str, root: Signer, now: int, epoch: int = 1) -> "KeyStore":
        """Make a complete key directory, certified by `root`; `now` in unix seconds.

        The directory appears whole or not at all. Raises: KeyFileError("exists") where one is already
        there, OSError.
        """
        if directory.exists() and any(directory.iterdir()):
            raise KeyFileError(
                "exists", directory, f"There are keys in {directory} already: `keys rotate` renews them."
            )
        fresh = directory.with_name(directory.name + ".new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700, parents=True)
        keyfiles.write_private(fresh / _ROOT, root.spki)
        _write_sign(fresh, site, root, epoch)
        _write_decrypt(fresh, now)
        os.replace(fresh, directory)
        keyfiles.sync_directory(directory.parent)
        return cls(directory, site)

    @classmethod
    def open_or_create(cls, directory: Path, site: str, root_pem: Path, now: int) -> tuple["KeyStore", bool]:
        """Open the key directory, or make one certified by the root key in `root_pem`.

        Returns the store and whether it is new. Raises: KeyFileError, OSError.
        """
        if directory.exists() and any(directory.iterdir()):
            return cls(directory, site), False
        return cls.create(directory, site, keyfiles.load_signer(root_pem), now), True

    @property
    def directory(self) -> Path:
        """Where the key files are."""
        return self._directory

    @property
    def root_spki(self) -> bytes:
        """DER of the root's public key, which terminals of this site must trust."""
        return self._root.spki

    @property
    def root(self) -> VerifyKey:
        """The root's public key."""
        return self._root

    @property
    def epoch(self) -> int:
        """Epoch of the server-sign certificate."""
        return self._epoch

    @property
    def certificate(self) -> bytes:
        """The server-sign key's cert-frame."""
        return self._certificate

    @property
    def server_sign(self) -> Signer:
        """Signs beacons, Accepts and menus."""
        return self._signer

    def rotate_sign(self, root: Signer) -> int:
        """Replace server-sign by a new key in the next epoch, certified by `root`; return the epoch.

        Devices that saw the new epoch's beacon never accept the old key again. Raises: KeyFileError where
        `root` is not this site's root, OSError.
        """
        if root.spki != self._root.spki:
            path = self._directory / _ROOT
            raise KeyFileError(
                "corrupt", path, f"The root key given is not the one in {path}: give the site's own root key."
            )
        with self._lock:
            _write_sign(self._directory, self._site, root, self._epoch + 1)
            self._load_sign()
            return self._epoch

    def current_decrypt(self, now: int) -> tuple[bytes, bytes]:
        """Return DER and kid of today's decryption key; `now` in unix seconds.

        Makes a new key when the day is over (about 0.2 s of computing) and destroys those replaced more
        than 15 minutes ago: call it outside the event loop. Raises: OSError where files cannot be written.
        """
        with self._lock:
            current = self._decrypt[-1] if self._decrypt else None
            if current is None or now - current.created >= DECRYPT_LIFE_S:
                current = _write_decrypt(self._directory, now)
                self._decrypt = [*self._decrypt, current]
            self._destroy_replaced(now)
            return current.spki, current.kid

    def decrypt_key(self, kid: bytes) -> RSAPrivateKey:
        """Return a decryption key that still exists. Raises: Refusal(STALE_BEACON) where it was destroyed."""
        for key in reversed(self._decrypt):
            if key.kid == kid:
                return key.key
        raise Refusal(RefusalCode.STALE_BEACON, "the beacon's decryption key was destroyed")

    def _destroy_replaced(self, now: int) -> None:
        kept = []
        for key, successor in zip(self._decrypt, self._decrypt[1:], strict=False):
            if now - successor.created > DECRYPT_GRACE_S:
                keyfiles.destroy(key.path)
            else:
                kept.append(key)
        self._decrypt = [*kept, self._decrypt[-1]]

    def _load_root(self) -> VerifyKey:
        path = self._directory / _ROOT
        data = keyfiles.read(path, _RESTORE, private=False)
        try:
            return VerifyKey(data, 3072)
        except Refusal:
            raise KeyFileError("corrupt", path, f"The key file {path} is damaged: {_RESTORE}.") from None

    def _load_sign(self) -> None:
        path = self._directory / _SIGN
        pem, certificate = keyfiles.split_certificate(keyfiles.read(path, _RESTORE), path, _RESTORE)
        self._signer = RsaSigner(keyfiles.parse_pem(pem, 3072, path, _RESTORE))
        try:
            certified = Certificate.open(certificate, self._root, self._site, SERVER_SIGN)
        except Refusal:
            certified = None
        if certified is None or certified.spki != self._signer.spki:
            raise KeyFileError(
                "corrupt",
                path,
                f"The certificate in {path} is not the root's word for this key and site {self._site}: "
                f"{_RESTORE}.",
            )
        self._certificate = certificate
        self._epoch = certified.epoch

    def _load_decrypt(self) -> list[_DecryptKey]:
        found = []
        for path in self._directory.iterdir():
            match = _DECRYPT.fullmatch(path.name)
            if match is None:
                continue
            try:
                pem = keyfiles.read(path, _RENEW)
            except KeyFileError as error:
                if error.code == "missing":  # a running server destroyed it since the directory was listed
                    continue
                raise
            key = keyfiles.parse_pem(pem, 2048, path, _RENEW)
            spki = spki_of(key.public_key())
            if kid_of(spki).hex() != match[2]:
                raise KeyFileError("corrupt", path, f"The key file {path} holds another key: {_RENEW}.")
            found.append(_DecryptKey(int(match[1]), spki, kid_of(spki), key, path))
        found.sort(key=lambda key: key.created)
        return found


def _write_sign(directory: Path, site: str, root: Signer, epoch: int) -> None:
    key = keyfiles.generate(3072)
    certificate = Certificate(SERVER_SIGN, spki_of(key.public_key()), epoch).seal(root, site)
    keyfiles.write_private(directory / _SIGN, keyfiles.with_certificate(keyfiles.to_pem(key), certificate))


def _write_decrypt(directory: Path, now: int) -> _DecryptKey:
    key = keyfiles.generate(2048)
    spki = spki_of(key.public_key())
    path = directory / f"decrypt-{now}-{kid_of(spki).hex()}.pem"
    keyfiles.write_private(path, keyfiles.to_pem(key))
    return _DecryptKey(now, spki, kid_of(spki), key, path)
