"""Steps of the attacks suite: what a malicious server or release store would put before a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import provision
from bench.faults.mqtt import Publish
from bench.faults.rules import Action, Change, Direction, Outcome
from bench.rig import Rig
from bench.suites.forging import ClaimingSigner, fixture_signer
from bench.suites.house_steps import rows
from bench.suites.ota_steps import HARDWARE, IMAGE, Update, make, target
from server.releases.bundle import Bundle, build_bundle, certify
from server.releases.images import IMAGE_FILE
from server.releases.serving import ServedBundle
from server.wire.cbor import decode
from server.wire.cose import parse_mac0
from server.wire.frames import SID_BYTES
from server.wire.freshness import OtaFresh
from server.wire.rotation import Rotation
from server.wire.rsa import VerifyKey
from server.wire.updates import REFERENCE_BYTES, BundleFile, Offer, OtaChunk, OtaGet

FRESH, OFFERS = "d/+/+/ota/fresh", "d/+/+/ota/offer"
OLD_EPOCH, NEW_EPOCH = 1, 2
RELEASE_KEYS = {OLD_EPOCH: "release", NEW_EPOCH: "release-2"}
PADDING_BYTES = 24 * 1024
_FRESH_MAX_BYTES = 128


def padded(rig: Rig, patch: int) -> Update:
    """An update of two dozen chunks."""
    return make(rig, patch, assets={"padding.bin": rig.random.randbytes(PADDING_BYTES)})


def reference(update: Update) -> bytes:
    """What requests and answers call this bundle."""
    return update.bundle.hash[:REFERENCE_BYTES]


def tell(rig: Rig, tail: str, frame: bytes) -> None:
    """Put a frame on one of the first terminal's update topics that no server sent."""
    rig.link.inject(Direction.DOWN, Publish(f"d/{rig.options.site}/t-0001/ota/{tail}", frame), "t-0001")


# ---------------------------------------------------------------- false bundles


def claimed(update: Update) -> bytes:
    """The offer with its manifest signed by a false key that claims to be the certified one."""
    genuine = fixture_signer("release")
    forged = update.bundle.manifest.seal(ClaimingSigner(fixture_signer("evil-root"), genuine.kid))
    return Offer(forged, update.bundle.offer.certificate).encode()


def renamed(update: Update, path: str) -> bytes:
    """The offer with its last file under another path, signed by the release key's thief."""
    *others, last = update.bundle.manifest.files
    manifest = replace(update.bundle.manifest, files=(*others, BundleFile(path, last.size, last.hash)))
    return Offer(manifest.seal(fixture_signer("release")), update.bundle.offer.certificate).encode()


def unnamed(update: Update) -> bytes:
    """The offer without the file that names the image the bundle was made over, signed all the same."""
    manifest = update.bundle.manifest
    files = tuple(file for file in manifest.files if file.path != IMAGE_FILE)
    lighter = replace(manifest, files=files, size=sum(file.size for file in files))
    return Offer(lighter.seal(fixture_signer("release")), update.bundle.offer.certificate).encode()


def borrowing(lender: Bundle, *whats: int) -> Callable[[bytes], bytes]:
    """A payload change: chunks (or hash runs) of one genuine release carry the bytes of another."""
    served = ServedBundle(lender)

    def change(frame: bytes) -> bytes:
        chunk = OtaChunk.decode(frame)
        if chunk.what not in whats:
            return frame
        other = served.answer(OtaGet(served.ref, chunk.what, chunk.index, 1))[0]
        return replace(chunk, data=other.data).encode()

    return change


# ---------------------------------------------------------------- an owned server


@dataclass
class OwnedServer:
    """The order server in a thief's hands: it has the keys of every session and no release key.

    Whenever the first terminal asks whether there is an update, the answer, under its session's own key,
    names `naming`; until the link is cleared.
    """

    rig: Rig
    naming: bytes = b""

    def __post_init__(self) -> None:
        self.rig.link.rule(Direction.DOWN, FRESH, Change(self._lie))

    def _lie(self, frame: bytes) -> bytes:
        sid = parse_mac0(frame, SID_BYTES, _FRESH_MAX_BYTES).identifier
        key, th8 = rows(self.rig, "SELECT k_s2d, th8 FROM session WHERE sid = ?", sid)[0]
        where = (self.rig.options.site, "t-0001", sid, th8)
        honest = OtaFresh.open(frame, key, *where)
        return replace(honest, ref=self.naming, version=IMAGE).seal(key, *where)


class Forestall(Action):
    """Deliver a false frame, made from the genuine one, right before it."""

    def __init__(self, forge: Callable[[bytes], bytes]) -> None:
        self._forge = forge

    def apply(self, publish: Publish) -> Outcome:
        return Outcome(publish.with_payload(self._forge(publish.payload)), extra=[publish])


def without_key(naming: bytes) -> Callable[[bytes], bytes]:
    """An answer that names a bundle, made by somebody who knows the session's id and not its key."""

    def forge(frame: bytes) -> bytes:
        parsed = parse_mac0(frame, SID_BYTES, _FRESH_MAX_BYTES)
        answer = decode(parsed.payload, _FRESH_MAX_BYTES)
        assert isinstance(answer, list)
        fresh = OtaFresh(bytes(answer[0]), naming, IMAGE)
        return fresh.seal(bytes(32), "demo", "t-0001", parsed.identifier, bytes(8))

    return forge


def named(frame: bytes) -> bytes:
    """The bundle an answer names, b"" for none."""
    answer = decode(parse_mac0(frame, SID_BYTES, _FRESH_MAX_BYTES).payload, _FRESH_MAX_BYTES)
    assert isinstance(answer, list)
    return bytes(answer[1])


# ---------------------------------------------------------------- release keys


def signed_in(rig: Rig, patch: int, epoch: int) -> Update:
    """An update signed by the release key of an epoch, certified by the root."""
    update, signer = make(rig, patch), fixture_signer(RELEASE_KEYS[epoch])
    certificate = certify(fixture_signer("root"), signer.spki, epoch)
    wanted = target(HARDWARE[rig.board.kind], update.version)
    return replace(update, bundle=build_bundle(update.content, wanted, signer, certificate))


def rotation() -> Rotation:
    """The genuine statement that the second release key follows the first."""
    root, old, new = (fixture_signer(name) for name in ("root", "release", "release-2"))
    certificates = certify(root, old.spki, OLD_EPOCH), certify(root, new.spki, NEW_EPOCH)
    return Rotation.make(old, certificates[0], new, certificates[1], VerifyKey(provision.root_spki(), 3072))
