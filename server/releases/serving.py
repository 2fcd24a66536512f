"""Answering terminals that fetch a bundle. Bounded: one request leads to at most 16 answers of at most 4 KiB.

Nothing here is authenticated on its own: what a terminal receives it checks against the signed manifest, so a
forged request costs the sender's rate limit and a forged answer one more request.
"""

from collections.abc import Iterable

from server.releases.bundle import Bundle, chunk_hashes
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import HASH_BYTES
from server.wire.updates import HASHES_PER_RUN, REFERENCE_BYTES, WHAT_HASHES, OtaChunk, OtaGet

_RUN_BYTES = HASHES_PER_RUN * HASH_BYTES


class ServedBundle:
    """One published bundle, cut for serving."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.ref = bundle.hash[:REFERENCE_BYTES]
        self.key_epoch = bundle.offer.key_epoch
        self._chunk_size = bundle.manifest.chunk_size
        self._hashes = b"".join(chunk_hashes(bundle.data, self._chunk_size))

    @property
    def offer_frame(self) -> bytes:
        """The frame that tells a terminal about this bundle."""
        return self.bundle.offer.encode()

    def answer(self, request: OtaGet) -> list[OtaChunk]:
        """Return what was asked for, cut off at the end. Raises: Refusal(OUT_OF_RANGE) beyond the end."""
        hashes = request.what == WHAT_HASHES
        source, step = (self._hashes, _RUN_BYTES) if hashes else (self.bundle.data, self._chunk_size)
        count = -(-len(source) // step)
        if request.first >= count:
            raise Refusal(RefusalCode.OUT_OF_RANGE, "the request begins behind the end of the bundle")
        last = min(request.first + request.count, count)
        return [
            OtaChunk(self.ref, request.what, index, source[index * step : (index + 1) * step])
            for index in range(request.first, last)
        ]


class Releases:
    """The bundles a site serves, every one it is given: how many there may be is judged at publication."""

    def __init__(self, bundles: Iterable[Bundle] = ()) -> None:
        served = [ServedBundle(bundle) for bundle in bundles]
        self._served = {one.ref: one for one in served}

    def offers(self) -> list[ServedBundle]:
        """Return everything served, oldest first."""
        return list(self._served.values())

    def find(self, ref: bytes) -> ServedBundle | None:
        """Return the bundle with this reference, if it is served."""
        return self._served.get(ref)
