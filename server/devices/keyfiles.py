"""Private keys in files: written atomically with mode 0600, read with errors that say what to do."""

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from server.wire.rsa import RsaSigner

_CERTIFICATE_BEGIN = b"-----BEGIN SEAL1 CERTIFICATE-----\n"
_CERTIFICATE_END = b"-----END SEAL1 CERTIFICATE-----\n"


class KeyFileError(Exception):
    """A key file is missing, unreadable or not what it should be.

    `code` is one of "missing", "unreadable", "corrupt", "exposed", "exists"; the message is a sentence with
    the file and the next step.
    """

    def __init__(self, code: str, path: Path, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.path = path


def generate(bits: int) -> rsa.RSAPrivateKey:
    """Return a new RSA key of `bits`, e = 65537 (0.1 to 1 s of computing)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def to_pem(key: rsa.RSAPrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return a key as PKCS #8 PEM, encrypted where there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def read(path: Path, next_step: str, private: bool = True) -> bytes:
    """Return a file's bytes; a private one must not be open to other users. Raises: KeyFileError."""
    try:
        if private and path.stat().st_mode & 0o077:
            raise KeyFileError(
                "exposed", path, f"The key file {path} is open to other users: run chmod 600 {path}."
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise KeyFileError("missing", path, f"The key file {path} is missing: {next_step}.") from None
    except OSError as error:
        raise KeyFileError(
            "unreadable", path, f"The key file {path} cannot be read ({error.strerror}): {next_step}."
        ) from None


def is_encrypted(data: bytes) -> bool:
    """Whether PEM bytes need a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data


def parse_pem(
    data: bytes, bits: int, path: Path, next_step: str, passphrase: bytes | None = None
) -> rsa.RSAPrivateKey:
    """Return the RSA key of exactly `bits` in PEM bytes. Raises: KeyFileError("corrupt")."""
    try:
        key = serialization.load_pem_private_key(data, password=passphrase if is_encrypted(data) else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError("corrupt", path, f"The key file {path} is damaged: {next_step}.") from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != bits:
        raise KeyFileError(
            "corrupt", path, f"The key file {path} does not hold an RSA-{bits} key: {next_step}."
        )
    return key


def load_signer(path: Path, bits: int = 3072, private: bool = False) -> RsaSigner:
    """Return a signer from a PEM file given by the operator (root or release key). Raises: KeyFileError."""
    next_step = "give the path of an unencrypted PKCS #8 PEM file"
    return RsaSigner(parse_pem(read(path, next_step, private), bits, path, next_step))


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` atomically and durably with `data`, mode 0600. Raises: OSError."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and deletions in `directory` durable. Raises: OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def destroy(path: Path) -> None:
    """Overwrite a key file and remove it; on copy-on-write or flash file systems old blocks may survive."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_directory(path.parent)


def with_certificate(pem: bytes, certificate: bytes) -> bytes:
    """Return one file's bytes with a private key and its cert-frame, so that both change together."""
    return pem + _CERTIFICATE_BEGIN + base64.encodebytes(certificate) + _CERTIFICATE_END


def split_certificate(data: bytes, path: Path, next_step: str) -> tuple[bytes, bytes]:
    """Return PEM and cert-frame from such a file. Raises: KeyFileError("corrupt")."""
    pem, begin, rest = data.partition(_CERTIFICATE_BEGIN)
    body, end, _ = rest.partition(_CERTIFICATE_END)
    try:
        certificate = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except binascii.Error:
        certificate = b""
    if not begin or not end or not certificate:
        raise KeyFileError("corrupt", path, f"The key file {path} is damaged: {next_step}.")
    return pem, certificate
