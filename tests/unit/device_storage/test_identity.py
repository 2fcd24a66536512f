"""The provisioning record: read from flash, judged, overridden only where the bench may."""

from __future__ import annotations

import zlib

import cbor2
import pytest
from boards.host.nor import Nor, PowerCut
from signing import private_key, spki
from terminal import identity
from terminal.flashlog import StorageError
from terminal.wire.errors import WireError

SECTOR = 4096


def record() -> bytes:
    """The record of contracts: magic, length, CBOR, CRC-32."""
    numbers = private_key("t-0001").private_numbers()
    public = numbers.public_numbers
    parts = (public.n, public.e, numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    key = [part.to_bytes((part.bit_length() + 7) // 8, "big") for part in parts]
    body = cbor2.dumps([1, "demo", "t-0001", "4", "secret", "127.0.0.1", 1883, spki("root"), key])
    return b"TSID" + len(body).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def flash(data: bytes) -> Nor:
    nor = Nor(2 * SECTOR)
    nor.data[: len(data)] = data
    return nor


def test_a_provisioned_terminal_knows_who_it_is() -> None:
    found = identity.load(flash(record()).region(0, 2 * SECTOR), {}, None)
    assert (found.site, found.device, found.table) == ("demo", "t-0001", "4")
    assert (found.host, found.port, found.password) == ("127.0.0.1", 1883, "secret")
    assert found.root_spki == spki("root")


def test_the_bench_may_move_the_broker_and_nothing_else() -> None:
    options = {"host": "10.0.2.2", "port": 4711, "device": "t-0002", "password": "guess"}
    found = identity.load(flash(record()).region(0, 2 * SECTOR), options, None)
    assert (found.host, found.port) == ("10.0.2.2", 4711)
    assert (found.device, found.password) == ("t-0001", "secret")


def test_a_record_that_names_another_root_than_the_image_is_refused() -> None:
    device = flash(record()).region(0, 2 * SECTOR)
    assert identity.load(device, {}, spki("root")).device == "t-0001"
    with pytest.raises(StorageError, match="OTHER_ROOT"):
        identity.load(device, {}, spki("evil-root"))


def test_an_erased_region_is_no_identity() -> None:
    with pytest.raises(WireError, match="BAD_RECORD"):
        identity.load(Nor(2 * SECTOR).region(0, 2 * SECTOR), {}, None)


def both(first: bytes, second: bytes) -> bytes:
    return first.ljust(SECTOR, b"\xff") + second


def rotten(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]


def test_any_rotten_byte_is_noticed() -> None:
    good = record()
    for at in range(0, len(good), 11):
        for damaged in (rotten(good, at), both(rotten(good, at), rotten(good, -1 - at + len(good)))):
            with pytest.raises(StorageError, match="IDENTITY_DAMAGED"):
                identity.load(flash(damaged).region(0, 2 * SECTOR), {}, None)


@pytest.mark.parametrize("spoilt", [0, 1])
def test_rot_in_one_copy_costs_nothing_and_is_mended(spoilt: int) -> None:
    good = record()
    copies = [good, good]
    copies[spoilt] = rotten(good, 77)
    nor = flash(both(*copies))
    assert identity.load(nor.region(0, 2 * SECTOR), {}, None).device == "t-0001"
    assert bytes(nor.data) == both(good, good).ljust(2 * SECTOR, b"\xff")
    assert nor.violations == 0


def test_a_record_from_before_there_were_copies_is_read_and_gets_its_second() -> None:
    nor = flash(record())
    for erases in (1, 1):
        assert identity.load(nor.region(0, 2 * SECTOR), {}, None).device == "t-0001"
        assert nor.erases == erases, "whole copies are left alone"
    assert bytes(nor.data[SECTOR:]).rstrip(b"\xff") == record().rstrip(b"\xff")


def test_a_power_cut_while_a_copy_is_mended_leaves_the_other() -> None:
    for step in range(1, 30):
        nor = flash(record())
        nor.cut_at(step, 7)
        try:
            identity.load(nor.region(0, 2 * SECTOR), {}, None)
        except PowerCut:
            again = Nor(2 * SECTOR, nor.data)
            assert identity.load(again.region(0, 2 * SECTOR), {}, None).device == "t-0001"
            assert bytes(again.data) == both(record(), record()).ljust(2 * SECTOR, b"\xff")
