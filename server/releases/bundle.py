"""Building a bundle: files joined in order, cut into chunks, described by a signed manifest.

Pure. The release key is borrowed through the `Signer` seam and is never on the order server in operation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from server.releases.code import check_code
from server.releases.images import digest_in
from server.releases.rules import check_paths, check_size, most_bytes
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import RELEASE, Certificate
from server.wire.rsa import Signer, VerifyKey
from server.wire.updates import BundleFile, Manifest, Offer, bundle_hash

DEFAULT_CHUNK_BYTES = 1024


@dataclass(frozen=True)
class Target:
    """What a bundle is for.

    `hardware` is the hardware class; `group` the sites' group, "" for all. Versions are release numbers
    (major << 16 | minor << 8 | patch): `floor` is the lowest version that may be installed afterwards,
    `firmware_minimum` and `firmware_maximum` bound the firmware image it runs on.
    """

    hardware: str
    version: int
    floor: int = 0
    firmware_minimum: int = 0
    firmware_maximum: int = 0xFFFF_FFFF
    group: str = ""


@dataclass(frozen=True)
class Bundle:
    """A signed release as it is offered and served; `data` is the files' joined bytes."""

    offer: Offer
    manifest: Manifest
    data: bytes

    @property
    def hash(self) -> bytes:
        """The bundle's name, 32 bytes."""
        return bundle_hash(self.offer.manifest_frame)

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by path."""
        return split(self.manifest, self.data)


def certify(root: Signer, release_spki: bytes, epoch: int = 1) -> bytes:
    """Return the cert-frame, made by the root key, that makes a key (DER, RSA-3072) a release key."""
    return Certificate(RELEASE, release_spki, epoch).seal(root, "")


def chunk_hashes(data: bytes, chunk_size: int) -> list[bytes]:
    """Return the SHA-256 of each chunk of `chunk_size` bytes, in order."""
    return [sha256(data[at : at + chunk_size]).digest() for at in range(0, len(data), chunk_size)]


@dataclass(frozen=True)
class Draft:
    """A bundle that is built and not signed yet: the same sources always make the same bytes of it."""

    manifest: Manifest
    data: bytes

    def sign(self, signer: Signer, certificate: bytes) -> Bundle:
        """Return the signed bundle; `signer` is a release key, `certificate` the root's cert-frame for it.

        Raises: Refusal(TOO_LARGE).
        """
        offer = Offer(self.manifest.seal(signer), certificate)
        offer.encode()  # judges its size
        return Bundle(offer, self.manifest, self.data)


def draft_bundle(files: Mapping[str, bytes], target: Target, chunk_size: int = DEFAULT_CHUNK_BYTES) -> Draft:
    """Return the bundle of `files` (relative path to bytes, in the order they will lie in it), unsigned.

    Raises: Refusal(BAD_RELEASE, BAD_SHAPE, NO_IMAGE_NAMED, WRONG_CODE) where no terminal could accept it.
    """
    data = b"".join(files.values())
    check_contents(files, target.hardware, chunk_size)
    manifest = Manifest(
        hardware=target.hardware,
        group=target.group,
        version=target.version,
        floor=target.floor,
        firmware_minimum=target.firmware_minimum,
        firmware_maximum=target.firmware_maximum,
        size=len(data),
        chunk_size=chunk_size,
        files=tuple(BundleFile(path, len(body), sha256(body).digest()) for path, body in files.items()),
        chunks=sha256(b"".join(chunk_hashes(data, chunk_size))).digest(),
    )
    manifest.payload()  # judges it
    return Draft(manifest, data)


def build_bundle(
    files: Mapping[str, bytes],
    target: Target,
    signer: Signer,
    certificate: bytes,
    chunk_size: int = DEFAULT_CHUNK_BYTES,
) -> Bundle:
    """Return the signed bundle of `files`. Raises: Refusal as `draft_bundle` and `Draft.sign` do."""
    return draft_bundle(files, target, chunk_size).sign(signer, certificate)


def open_bundle(offer_frame: bytes, data: bytes, root: VerifyKey) -> Bundle:
    """Return the bundle if everything in it is what a release key certified by `root` signed.

    Raises: Refusal, BAD_RELEASE where the bytes are not the manifest's.
    """
    offer = Offer.decode(offer_frame)
    manifest = offer.open(root)
    check_data(manifest, data)
    return Bundle(offer, manifest, data)


def check_data(manifest: Manifest, data: bytes) -> None:
    """Compare a bundle's bytes with its manifest. Raises: Refusal(BAD_RELEASE)."""
    if len(data) != manifest.size:
        raise Refusal(RefusalCode.BAD_RELEASE, "the bundle has another size than its manifest says")
    files = split(manifest, data)
    if any(sha256(files[file.path]).digest() != file.hash for file in manifest.files):
        raise Refusal(RefusalCode.BAD_RELEASE, "a file of the bundle is not the one its manifest names")
    if sha256(b"".join(chunk_hashes(data, manifest.chunk_size))).digest() != manifest.chunks:
        raise Refusal(RefusalCode.BAD_RELEASE, "the chunk hash list is not the one its manifest names")


def check_contents(files: Mapping[str, bytes], hardware: str, chunk_bytes: int) -> bytes | None:
    """Refuse files (by path) that no terminal of this hardware class installs or runs.

    Returns the digest of the image they name, None if they name none and need not.
    Raises: Refusal(BAD_RELEASE, NO_IMAGE_NAMED, WRONG_CODE).
    """
    check_paths(files)
    check_size(sum(map(len, files.values())), chunk_bytes, most_bytes(files))
    check_code(files, hardware)
    return digest_in(files)


def split(manifest: Manifest, data: bytes) -> dict[str, bytes]:
    """Return a bundle's files by path, cut out of its joined bytes."""
    found, at = {}, 0
    for file in manifest.files:
        found[file.path] = data[at : at + file.size]
        at += file.size
    return found
