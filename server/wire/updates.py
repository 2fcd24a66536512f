"""Update frames: the signed manifest, its offer, and the requests and answers that carry a bundle."""

from dataclasses import dataclass
from hashlib import sha256

from server.wire import aad, shapes
from server.wire.cbor import Value, decode, encode
from server.wire.cose import sign1, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import CERTIFICATE_MAX_BYTES, HASH_BYTES, RELEASE, SMALL_MAX_BYTES, Certificate
from server.wire.rsa import Signer, VerifyKey

PRODUCT = "tableside"
OFFER_MAX_BYTES = 8192
CHUNK_MIN_BYTES = 256
CHUNK_MAX_BYTES = 4096
FILES_MAX = 64
GET_COUNT_MAX = 16
REFERENCE_BYTES = 8
_STATE_REFERENCE_BYTES = (0, 6, REFERENCE_BYTES)  # of a bundle in quarantine a terminal keeps 6
HASHES_PER_RUN = 32
APPLICATION, IMAGE = "application", "image"  # the layers of a terminal that are updated
_IMAGE_SLOT = 3
IMAGE_CLASS_SUFFIX = "-image"  # of a firmware image's hardware class
WHAT_HASHES = 0
WHAT_CHUNKS = 1
_TEXT_MAX_BYTES = 32
_PATH_MAX_BYTES = 64
_CHUNK_FRAME_MAX_BYTES = CHUNK_MAX_BYTES + 32


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle: relative path, size in bytes, SHA-256."""

    path: str
    size: int
    hash: bytes


@dataclass(frozen=True)
class Manifest:
    """What a release key says about a bundle.

    Versions are release numbers (major << 16 | minor << 8 | patch); `firmware_minimum` and
    `firmware_maximum` bound the firmware images the bundle runs on; sizes in bytes; `chunks` is the SHA-256
    over the joined chunk hashes.
    """

    hardware: str
    group: str
    version: int
    floor: int
    firmware_minimum: int
    firmware_maximum: int
    size: int
    chunk_size: int
    files: tuple[BundleFile, ...]
    chunks: bytes

    def payload(self) -> bytes:
        """Return the signed bytes. Raises: Refusal(BAD_SHAPE, BAD_RELEASE) for a manifest nobody may sign."""
        files: list[Value] = [[file.path, file.size, file.hash] for file in self.files]
        payload = encode(
            [
                PRODUCT,
                self.hardware,
                self.group,
                self.version,
                self.floor,
                self.firmware_minimum,
                self.firmware_maximum,
                self.size,
                self.chunk_size,
                files,
                self.chunks,
            ]
        )
        Manifest.from_payload(payload)
        return payload

    def seal(self, signer: Signer) -> bytes:
        """Return the manifest-frame."""
        return sign1(signer, self.payload(), aad.manifest())

    @classmethod
    def from_payload(cls, payload: bytes) -> "Manifest":
        """Judge a manifest's shape and sums. Raises: Refusal."""
        f = shapes.array(decode(payload, OFFER_MAX_BYTES), 11, 11, "manifest")
        if f[0] != PRODUCT:
            raise Refusal(RefusalCode.BAD_RELEASE, "the manifest is for another product")
        manifest = cls(
            hardware=shapes.text(f[1], 1, _TEXT_MAX_BYTES, "manifest hardware"),
            group=shapes.text(f[2], 0, _TEXT_MAX_BYTES, "manifest group"),
            version=shapes.u32(f[3], "manifest version"),
            floor=shapes.u32(f[4], "manifest floor"),
            firmware_minimum=shapes.u32(f[5], "manifest firmware minimum"),
            firmware_maximum=shapes.u32(f[6], "manifest firmware maximum"),
            size=shapes.u32(f[7], "manifest size"),
            chunk_size=shapes.integer(f[8], CHUNK_MIN_BYTES, CHUNK_MAX_BYTES, "manifest chunk size"),
            files=tuple(map(_file, shapes.array(f[9], 1, FILES_MAX, "manifest files"))),
            chunks=shapes.exactly(f[10], HASH_BYTES, "manifest chunks"),
        )
        _check_sums(manifest)
        return manifest


def _file(value: Value) -> BundleFile:
    f = shapes.array(value, 3, 3, "manifest file")
    return BundleFile(
        shapes.text(f[0], 1, _PATH_MAX_BYTES, "manifest path"),
        shapes.u32(f[1], "manifest file size"),
        shapes.exactly(f[2], HASH_BYTES, "manifest file hash"),
    )


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return "\\" not in path and "\0" not in path and not {"", ".", ".."} & set(parts)


def _check_sums(manifest: Manifest) -> None:
    paths = [file.path for file in manifest.files]
    if len(set(paths)) != len(paths) or not all(map(_is_inside, paths)):
        raise Refusal(RefusalCode.BAD_RELEASE, "a path of the manifest is doubled or leaves the bundle")
    if sum(file.size for file in manifest.files) != manifest.size:
        raise Refusal(RefusalCode.BAD_RELEASE, "the files' sizes do not add up to the bundle's")
    if manifest.floor > manifest.version or manifest.firmware_minimum > manifest.firmware_maximum:
        raise Refusal(RefusalCode.BAD_RELEASE, "the manifest's versions contradict each other")


def bundle_hash(manifest_frame: bytes) -> bytes:
    """Return a bundle's name: SHA-256 over the manifest-frame; requests use its first 8 bytes."""
    return sha256(manifest_frame).digest()


@dataclass(frozen=True)
class Offer:
    """A manifest-frame with the certificate of the release key that signed it."""

    manifest_frame: bytes
    certificate: bytes

    @property
    def key_epoch(self) -> int:
        """The epoch its certificate claims, not verified. Raises: Refusal."""
        return Certificate.claimed(self.certificate, RELEASE).epoch

    def encode(self) -> bytes:
        """Return the frame. Raises: Refusal(TOO_LARGE)."""
        frame = encode([self.manifest_frame, self.certificate])
        if len(frame) > OFFER_MAX_BYTES:
            raise Refusal(RefusalCode.TOO_LARGE, f"the offer has {len(frame)} bytes of {OFFER_MAX_BYTES}")
        return frame

    @classmethod
    def decode(cls, frame: bytes) -> "Offer":
        """Judge an offer's shape. Raises: Refusal."""
        f = shapes.array(decode(frame, OFFER_MAX_BYTES), 2, 2, "offer")
        return cls(
            shapes.binary(f[0], 1, OFFER_MAX_BYTES, "offer manifest"),
            shapes.binary(f[1], 1, CERTIFICATE_MAX_BYTES, "offer certificate"),
        )

    def open(self, root: VerifyKey) -> Manifest:
        """Return the manifest if a release key certified by `root` signed it. Raises: Refusal."""
        key = Certificate.open(self.certificate, root, "", RELEASE).verify_key()
        return Manifest.from_payload(verify_sign1(self.manifest_frame, key, aad.manifest(), OFFER_MAX_BYTES))


@dataclass(frozen=True, slots=True)
class OtaGet:
    """A device's request for `count` runs of chunk hashes (what 0) or chunks (what 1) from `first` on."""

    ref: bytes
    what: int
    first: int
    count: int

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([self.ref, self.what, self.first, self.count])

    @classmethod
    def decode(cls, frame: bytes) -> "OtaGet":
        """Judge a request. Raises: Refusal."""
        f = shapes.array(decode(frame, SMALL_MAX_BYTES), 4, 4, "ota-get")
        return cls(
            shapes.exactly(f[0], REFERENCE_BYTES, "ota-get ref"),
            shapes.integer(f[1], WHAT_HASHES, WHAT_CHUNKS, "ota-get what"),
            shapes.u32(f[2], "ota-get first"),
            shapes.integer(f[3], 1, GET_COUNT_MAX, "ota-get count"),
        )


@dataclass(frozen=True, slots=True)
class OtaChunk:
    """One answer: the `index`-th run of 32 chunk hashes (what 0) or the `index`-th chunk (what 1)."""

    ref: bytes
    what: int
    index: int
    data: bytes

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([self.ref, self.what, self.index, self.data])

    @classmethod
    def decode(cls, frame: bytes) -> "OtaChunk":
        """Judge an answer as a device does. Raises: Refusal."""
        f = shapes.array(decode(frame, _CHUNK_FRAME_MAX_BYTES), 4, 4, "ota-chunk")
        return cls(
            shapes.exactly(f[0], REFERENCE_BYTES, "ota-chunk ref"),
            shapes.integer(f[1], WHAT_HASHES, WHAT_CHUNKS, "ota-chunk what"),
            shapes.u32(f[2], "ota-chunk index"),
            shapes.binary(f[3], 0, CHUNK_MAX_BYTES, "ota-chunk data"),
        )


@dataclass(frozen=True, slots=True)
class OtaState:
    """Where a terminal's update stands; for views only, not authenticated.

    `slot` 2 is the factory one, 3 and 4 are the firmware images ota_0 and ota_1. `ref` is the beginning of
    the hash of the bundle this is about, 6 or 8 bytes, or empty for none; None is an older terminal's, which
    does not say.
    """

    running: int
    slot: int
    state: int
    offset: int
    reason: int
    ref: bytes | None = None

    @property
    def layer(self) -> str:
        """What is updated: APPLICATION or IMAGE."""
        return IMAGE if self.slot >= _IMAGE_SLOT else APPLICATION

    def encode(self) -> bytes:
        """Return the frame."""
        fields: list[Value] = [self.running, self.slot, self.state, self.offset, self.reason]
        return encode(fields if self.ref is None else [*fields, self.ref])

    @classmethod
    def decode(cls, frame: bytes) -> "OtaState":
        """Judge a report. Raises: Refusal."""
        f = shapes.array(decode(frame, SMALL_MAX_BYTES), 5, 6, "ota-state")
        ref = shapes.binary(f[5], 0, REFERENCE_BYTES, "ota-state ref") if len(f) == 6 else None
        if ref is not None and len(ref) not in _STATE_REFERENCE_BYTES:
            raise shapes.bad_shape("ota-state ref")
        return cls(
            shapes.u32(f[0], "ota-state running"),
            shapes.integer(f[1], 0, 4, "ota-state slot"),
            shapes.integer(f[2], 0, 6, "ota-state state"),
            shapes.u32(f[3], "ota-state offset"),
            shapes.u32(f[4], "ota-state reason"),
            ref,
        )
