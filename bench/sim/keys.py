"""Keys for simulated sites: the fixtures' where they exist, others made once and kept below ``build/``.

Nothing a run decides depends on a key's value, so keys may differ from machine to machine.
"""

from __future__ import annotations

import functools
import hashlib
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench.boards.base import Identity
from bench.paths import BUILD, FIXTURE_KEYS
from bench.provision import identity, key_pool
from server.devices import keyfiles
from server.wire.frames import SERVER_SIGN, Certificate
from server.wire.rsa import kid_of, spki_of

POOL = BUILD / "sim" / "keys"

# Reading a private key with all its checks takes a fifth of a second, and a server reads two at every start.
loaded_pem = functools.lru_cache(maxsize=256)(
    functools.partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)
)


def parse_pem(
    data: bytes, bits: int, path: Path, next_step: str, passphrase: bytes | None = None
) -> RSAPrivateKey:
    """Stands for ``keyfiles.parse_pem``: sites of the bench have no damaged keys."""
    key = loaded_pem(data, password=passphrase)
    if not isinstance(key, RSAPrivateKey) or key.key_size != bits:
        raise keyfiles.KeyFileError("corrupt", path, f"{path} is no RSA-{bits} key: {next_step}.")
    return key


def terminal_identity(number: int, site: str) -> Identity:
    """The n-th terminal's identity (from 1), with a key of its own."""
    if number <= len(key_pool()):
        return identity(number, site)
    POOL.mkdir(parents=True, exist_ok=True)
    path = POOL / f"t-{number:04d}.pem"
    if not path.exists():
        keyfiles.write_private(path, keyfiles.to_pem(keyfiles.generate(2048)))
    device = path.stem
    password = sha256(f"throw-away password of {device}".encode()).hexdigest()[:24]
    return Identity(site, device, str(number), password, path.read_bytes())


def make_site_keys(folder: Path, site: str, now_s: int) -> None:
    """A server key directory made of the fixtures' keys, as ``keys init`` would make one of new keys."""
    folder.mkdir(parents=True, mode=0o700)
    root = keyfiles.load_signer(FIXTURE_KEYS / "root.pem")
    sign = keyfiles.load_signer(FIXTURE_KEYS / "server-sign.pem")
    certificate = Certificate(SERVER_SIGN, sign.spki, 1).seal(root, site)
    keyfiles.write_private(folder / "root.spki.der", root.spki)
    pem = _bare_pem((FIXTURE_KEYS / "server-sign.pem").read_bytes())
    keyfiles.write_private(folder / "server-sign.pem", keyfiles.with_certificate(pem, certificate))
    pem = _bare_pem((FIXTURE_KEYS / "server-decrypt.pem").read_bytes())
    key = keyfiles.parse_pem(pem, 2048, FIXTURE_KEYS / "server-decrypt.pem", "make the fixtures again")
    kid = kid_of(spki_of(key.public_key()))
    keyfiles.write_private(folder / f"decrypt-{now_s}-{kid.hex()}.pem", pem)


def _bare_pem(data: bytes) -> bytes:
    """A PEM file without the sentence above it."""
    return data[data.index(b"-----BEGIN") :]


def cheap_password_hash(password: str, salt: bytes) -> str:
    """A stored password in the server's own format whose scrypt costs next to nothing."""
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2, r=8, p=1, dklen=32)
    return f"scrypt$2$8$1${salt.hex()}${digest.hex()}"


__all__ = ["cheap_password_hash", "loaded_pem", "make_site_keys", "parse_pem", "terminal_identity"]
