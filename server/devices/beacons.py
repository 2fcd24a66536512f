"""Beacons: issued every 30 seconds, remembered as long as a Hello may name them."""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

from server.devices.keys import KeyStore
from server.devices.records import IssuedBeacon, MenuReference
from server.devices.seams import Clock, Entropy
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Beacon
from server.wire.keyschedule import NONCE_BYTES

BEACON_MAX_AGE_S = 600
_KEEP = 256


class BeaconLog(Protocol):
    """Where issued beacons are kept, so that a restart neither repeats a counter nor forgets a beacon."""

    def load(self) -> Iterable[IssuedBeacon]:
        """Return the kept beacons in any order; the one with the highest counter must be among them."""
        ...

    def append(self, beacon: IssuedBeacon) -> Iterable[IssuedBeacon] | None:
        """Store a beacon durably, before it is published. Those over ten minutes old may be dropped.

        Where another server of the site was faster with this counter nothing is stored, and the beacons that
        are kept are returned.
        """
        ...


def _newest(beacons: Iterable[IssuedBeacon]) -> list[IssuedBeacon]:
    return sorted(beacons, key=lambda beacon: (beacon.epoch, beacon.counter))[-_KEEP:]


class Beacons:
    """Issues beacons of one site and finds those a Hello names.

    `minimum_firmware` is a release number. Memory is bounded: at most 256 beacons of the last ten minutes.
    """

    def __init__(
        self,
        site: str,
        keystore: KeyStore,
        log: BeaconLog,
        clock: Clock,
        entropy: Entropy,
        minimum_firmware: int = 0,
    ) -> None:
        self._site = site
        self._keystore = keystore
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._minimum_firmware = minimum_firmware
        self._recent = _newest(log.load())

    def issue(self, menu: MenuReference) -> bytes:
        """Store a new beacon for the published menu and return its frame, ready to be published retained.

        Rotates the daily decryption key when its day is over. Raises: KeyFileError when that key cannot be
        written.
        """
        while True:
            now, issued = self._next(menu)
            others = self._log.append(issued)
            if others is None:
                break
            self._recent = _newest(others)
        fresh = [kept for kept in self._recent if self._age_s(kept, now) <= BEACON_MAX_AGE_S]
        self._recent = [*fresh[-_KEEP + 1 :], issued]
        return issued.frame

    def _next(self, menu: MenuReference) -> tuple[int, IssuedBeacon]:
        """The time now and the beacon after the newest known one."""
        now = self._clock.unix_time()
        decrypt_spki, decrypt_kid = self._keystore.current_decrypt(now)
        last = self._recent[-1] if self._recent else None
        epoch = self._keystore.epoch
        beacon = Beacon(
            site=self._site,
            epoch=epoch,
            counter=last.counter + 1 if last is not None else 1,
            time=now,
            nonce=self._entropy.random(NONCE_BYTES),
            decrypt_spki=decrypt_spki,
            menu_version=menu.version,
            menu_hash=menu.hash,
            minimum_firmware=self._minimum_firmware,
            certificate=self._keystore.certificate,
        )
        frame = beacon.seal(self._keystore.server_sign)
        return now, IssuedBeacon(epoch, beacon.counter, now, frame, decrypt_kid)

    def find(self, counter: int, beacon_hash: bytes) -> IssuedBeacon:
        """Return the beacon a Hello names.

        Raises: Refusal(UNKNOWN_BEACON) where this site never issued it, STALE_BEACON where it is over ten
        minutes old.
        """
        now = self._clock.unix_time()
        for beacon in reversed(self._recent):
            if beacon.counter == counter and compare_digest(sha256(beacon.frame).digest(), beacon_hash):
                if self._age_s(beacon, now) > BEACON_MAX_AGE_S:
                    raise Refusal(RefusalCode.STALE_BEACON, "the Hello names a beacon over ten minutes old")
                return beacon
        raise Refusal(RefusalCode.UNKNOWN_BEACON, "the Hello names a beacon this site did not issue lately")

    @staticmethod
    def _age_s(beacon: IssuedBeacon, now: int) -> int:
        return max(0, now - beacon.time)  # a clock that was set back does not make beacons unusable
