"""The server's key directory and beacons: rotation, grace, and damage reported in sentences."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from server_kit import FIXTURES, MENU, NOW, SITE, Device, MemoryLog, SeededEntropy, Site, signer, verify_key

from server.devices.beacons import Beacons
from server.devices.keyfiles import KeyFileError, load_signer
from server.devices.keys import KeyStore
from server.devices.records import IssuedBeacon, MenuReference
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SERVER_SIGN, Beacon, Certificate

DAY_S = 24 * 3600


def decrypt_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("decrypt-*.pem"))


def test_a_new_key_directory_is_private_and_certified_by_the_root(keys_path: Path) -> None:
    store = KeyStore(keys_path, SITE)
    assert store.root_spki == signer("root").spki
    certificate = Certificate.open(store.certificate, verify_key("root"), SITE, SERVER_SIGN)
    assert (certificate.spki, certificate.epoch) == (store.server_sign.spki, 1)
    assert {path.stat().st_mode & 0o077 for path in keys_path.glob("*.pem")} == {0}
    assert not any(path.name.startswith("root") and path.suffix == ".pem" for path in keys_path.iterdir())


def test_opening_again_gives_the_same_keys(keys_path: Path) -> None:
    store, new = KeyStore.open_or_create(keys_path, SITE, FIXTURES / "keys" / "root.pem", NOW)
    assert not new
    assert store.certificate == KeyStore(keys_path, SITE).certificate


def test_a_key_directory_is_never_overwritten(keys_path: Path) -> None:
    with pytest.raises(KeyFileError, match="already") as refused:
        KeyStore.create(keys_path, SITE, signer("root"), NOW)
    assert refused.value.code == "exists"


def test_a_half_made_key_directory_is_made_anew(tmp_path: Path) -> None:
    left_over = tmp_path / "keys.new"
    left_over.mkdir()
    (left_over / "server-sign.pem").write_bytes(b"half a ke")
    store, new = KeyStore.open_or_create(tmp_path / "keys", SITE, FIXTURES / "keys" / "root.pem", NOW)
    assert new
    assert store.epoch == 1
    assert not left_over.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in ("root.spki.der", "server-sign.pem", "decrypt")
        for damage in ("truncated", "random", "missing")
        if (name, damage) != ("decrypt", "missing")  # not damage: a new one is made, see below
    ],
)
def test_a_damaged_key_file_is_one_sentence_with_the_next_step(
    keys_path: Path, name: str, damage: str
) -> None:
    path = decrypt_files(keys_path)[0] if name == "decrypt" else keys_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "truncated" else b"\xa5" * 700)
    with pytest.raises(KeyFileError) as refused:
        KeyStore(keys_path, SITE)
    sentence = str(refused.value)
    assert str(path) in sentence
    assert "restore" in sentence or "delete this file" in sentence
    assert refused.value.code == ("missing" if damage == "missing" else "corrupt")


def test_without_a_decryption_key_the_next_beacon_makes_one(keys_path: Path) -> None:
    decrypt_files(keys_path)[0].unlink()
    assert Site(KeyStore(keys_path, SITE)).beacons.issue(MENU)
    assert len(decrypt_files(keys_path)) == 1


def test_a_key_file_open_to_others_is_refused(keys_path: Path) -> None:
    (keys_path / "server-sign.pem").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600") as refused:
        KeyStore(keys_path, SITE)
    assert refused.value.code == "exposed"


def test_keys_of_another_site_are_refused(keys_path: Path) -> None:
    with pytest.raises(KeyFileError, match="site elsewhere"):
        KeyStore(keys_path, "elsewhere")


def test_a_root_file_of_the_wrong_kind_is_a_sentence(tmp_path: Path) -> None:
    wrong = tmp_path / "root.pem"
    wrong.write_text("not a key")
    with pytest.raises(KeyFileError, match="PKCS #8"):
        load_signer(wrong)
    with pytest.raises(KeyFileError, match="RSA-3072"):
        load_signer(FIXTURES / "keys" / "t-0001.pem")
    with pytest.raises(KeyFileError, match="missing"):
        load_signer(tmp_path / "nothing.pem")


def test_rotating_server_sign_raises_the_epoch_and_survives_a_restart(keys_path: Path) -> None:
    store = KeyStore(keys_path, SITE)
    old = store.server_sign.kid
    assert store.rotate_sign(signer("root")) == 2
    assert store.server_sign.kid != old
    again = KeyStore(keys_path, SITE)
    assert (again.epoch, again.server_sign.kid) == (2, store.server_sign.kid)


def test_only_the_sites_own_root_can_rotate(keys_path: Path) -> None:
    store = KeyStore(keys_path, SITE)
    with pytest.raises(KeyFileError, match="own root key"):
        store.rotate_sign(signer("evil-root"))
    assert store.epoch == 1


def test_the_decryption_key_changes_daily_and_the_old_one_lives_15_minutes_more(
    site: Site, keys_path: Path
) -> None:
    site.clock.seconds = NOW + DAY_S - 1
    site.beacons.issue(MENU)
    first = decrypt_files(keys_path)
    assert len(first) == 1
    last_of_the_day = site.beacons.issue(MENU)
    hello = Device().hello(last_of_the_day)
    site.clock.seconds += 1
    fresh = site.beacons.issue(MENU)
    assert len(decrypt_files(keys_path)) == 2
    fresh_key = Beacon.open(fresh, verify_key("root"), SITE)[0].decrypt_spki
    assert fresh_key != Beacon.open(last_of_the_day, verify_key("root"), SITE)[0].decrypt_spki
    site.clock.seconds += 590
    assert site.handshake.prepare(site.record(), hello, MENU).session is not None
    site.clock.seconds = NOW + DAY_S + 15 * 60
    site.beacons.issue(MENU)
    assert first[0].exists()
    site.clock.seconds += 1
    site.beacons.issue(MENU)
    assert not first[0].exists()
    assert len(decrypt_files(keys_path)) == 1


def test_a_beacon_is_what_a_device_accepts(site: Site) -> None:
    frame = site.beacons.issue(MENU)
    beacon, key = Beacon.open(frame, verify_key("root"), SITE)
    assert (beacon.site, beacon.epoch, beacon.counter, beacon.time) == (SITE, 1, 1, NOW)
    assert (beacon.menu_version, beacon.menu_hash) == (MENU.version, MENU.hash)
    assert key.kid == site.keystore.server_sign.kid
    for root, name in ((verify_key("evil-root"), SITE), (verify_key("root"), "other")):
        with pytest.raises(Refusal):
            Beacon.open(frame, root, name)


def test_a_beacons_counter_is_stored_before_the_beacon_leaves(site: Site) -> None:
    class FullDisk:
        def load(self) -> list[object]:
            return []

        def append(self, beacon: object) -> None:
            raise OSError(28, "No space left on device")

    beacons = Beacons(SITE, site.keystore, FullDisk(), site.clock, site.entropy)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space"):
        beacons.issue(MENU)
    with pytest.raises(Refusal):
        beacons.find(1, bytes(32))


def test_two_servers_of_a_site_never_use_a_counter_twice(site: Site) -> None:
    class Shared(MemoryLog):
        """As the database does it: a counter that is taken is answered with what is there."""

        def append(self, beacon: IssuedBeacon) -> list[IssuedBeacon] | None:  # type: ignore[override]
            if beacon.counter in {kept.counter for kept in self.beacons}:
                return list(self.beacons)
            self.beacons.append(beacon)
            return None

    log = Shared()
    servers = [Beacons(SITE, site.keystore, log, site.clock, site.entropy) for _ in range(2)]
    root = verify_key("root")
    issued = [Beacon.open(servers[number % 2].issue(MENU), root, SITE)[0].counter for number in range(5)]
    assert issued == [1, 2, 3, 4, 5]


def test_counters_go_on_and_hellos_stay_good_over_a_restart(site: Site) -> None:
    first = site.beacons.issue(MENU)
    hello = Device().hello(first)
    restarted = Site(site.keystore, site.clock, SeededEntropy(b"restart"), site.log)
    assert restarted.handshake.prepare(site.record(), hello, MENU).session is not None
    second = Beacon.open(restarted.beacons.issue(MenuReference(8, bytes(32))), verify_key("root"), SITE)[0]
    assert (second.counter, second.menu_version) == (2, 8)


def test_counters_go_on_over_a_new_epoch(site: Site) -> None:
    site.beacons.issue(MENU)
    site.keystore.rotate_sign(signer("root"))
    beacon = Beacon.open(site.beacons.issue(MENU), verify_key("root"), SITE)[0]
    assert (beacon.epoch, beacon.counter) == (2, 2)


def test_a_clock_set_back_does_not_lock_anybody_out(site: Site) -> None:
    frame = site.beacons.issue(MENU)
    site.clock.seconds -= 3600
    assert site.beacons.find(1, sha256(frame).digest()).frame == frame
    assert site.beacons.issue(MENU)


def test_memory_for_beacons_is_bounded(site: Site) -> None:
    frames = [site.beacons.issue(MENU) for _ in range(300)]
    with pytest.raises(Refusal) as refused:
        site.beacons.find(1, sha256(frames[0]).digest())
    assert refused.value.code == RefusalCode.UNKNOWN_BEACON
    assert site.beacons.find(300, sha256(frames[-1]).digest()).counter == 300
