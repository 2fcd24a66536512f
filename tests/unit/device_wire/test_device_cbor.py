"""The CBOR reader accepts the one shortest encoding of a shape and answers everything else with a code."""

from __future__ import annotations

import cbor2
import pytest
from terminal.wire import cbor
from terminal.wire.cbor import Reader
from terminal.wire.errors import WireError

EDGES = [0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53, 2**64 - 1]


def refused(code: str) -> pytest.RaisesExc[WireError]:
    return pytest.raises(WireError, match=f"^{code}$")


@pytest.mark.parametrize("n", EDGES)
def test_integers_of_every_width_are_written_and_read(n: int) -> None:
    assert cbor.enc_uint(n) == cbor2.dumps(n)
    assert cbor.enc_int(-1 - n) == cbor2.dumps(-1 - n)
    reader = Reader(cbor2.dumps(n))
    assert reader.uint(n) == n
    reader.end()
    assert Reader(cbor2.dumps(-1 - n)).int(-1 - n, 0) == -1 - n
    buffer = bytearray(12)
    end = cbor.put_uint(buffer, 2, 0, n)
    assert bytes(buffer[2:end]) == cbor2.dumps(n)


def test_strings_and_arrays_are_written_as_the_library_writes_them() -> None:
    for size in (0, 1, 23, 24, 255, 256, 1000):
        assert cbor.enc_bstr(bytes(size)) == cbor2.dumps(bytes(size))
        assert cbor.enc_tstr("x" * size) == cbor2.dumps("x" * size)
        assert cbor.enc_array_head(size) == cbor2.dumps([0] * size)[: -size or None]


@pytest.mark.parametrize("data", ["1800", "1817", "190000", "1900ff", "1a0000ffff", "1b00000000ffffffff"])
def test_a_longer_encoding_than_needed_is_refused(data: str) -> None:
    with refused("NOT_SHORTEST"):
        Reader(bytes.fromhex(data)).uint(2**64)
    string = bytearray(bytes.fromhex(data))
    string[0] |= 0x40
    with refused("NOT_SHORTEST"):
        Reader(string + bytes(300)).bstr(0, 1 << 40)


@pytest.mark.parametrize("first", [*range(0x1C, 0x20), *range(0x20, 0x100)])
def test_every_other_first_byte_is_refused_where_an_unsigned_integer_belongs(first: int) -> None:
    with refused("WRONG_TYPE"):
        Reader(bytes((first,)) + bytes(16)).uint()


@pytest.mark.parametrize(
    "head", ["5f", "7f", "9f", "bf", "f9", "fa", "fb", "f4", "f6", "c0", "a0", "ff", "1f"]
)
def test_indefinite_lengths_floats_maps_and_tags_are_refused(head: str) -> None:
    data = bytes.fromhex(head) + bytes(16)
    for read in (
        lambda reader: reader.uint(),
        lambda reader: reader.int(-5, 5),
        lambda reader: reader.bstr(0, 99),
        lambda reader: reader.tstr(0, 99),
        lambda reader: reader.array((0, 99)),
        lambda reader: reader.tag(18),
        lambda reader: reader.id(),
    ):
        with refused("WRONG_TYPE"):
            read(Reader(data))


def test_a_huge_length_is_refused_before_anything_is_allocated() -> None:
    for size in (2**20, 2**32 - 1, 2**63):
        data = b"\x5b" + size.to_bytes(8, "big") if size >= 2**32 else b"\x5a" + size.to_bytes(4, "big")
        with refused("OUT_OF_RANGE"):
            Reader(data).bstr(0, 1024)
        with refused("TRUNCATED"):
            Reader(data).bstr(0, 2**64)


def test_a_string_is_a_view_and_never_reaches_past_the_end() -> None:
    data = b"\x43abc\x41d"
    reader = Reader(data)
    view = reader.bstr(3)
    assert isinstance(view, memoryview)
    assert view == b"abc"
    assert reader.bstr(0, 1) == b"d"
    reader.end()
    with refused("TRUNCATED"):
        Reader(data, 0, 3).bstr(3)
    with refused("TRUNCATED"):
        Reader(b"").uint()
    with refused("TRUNCATED"):
        Reader(b"\x19\x01").uint()
    with refused("TRAILING"):
        Reader(b"\x01\x02").end()


@pytest.mark.parametrize("name", ["a", "t-0001", "z" * 32, "0-9"])
def test_ids_of_the_alphabet_are_read(name: str) -> None:
    assert Reader(cbor2.dumps(name)).id() == name


@pytest.mark.parametrize("name", ["A", "t_1", "a b", "ä", "t.1", "a/b", "a\0", "+", "#"])
def test_ids_outside_the_alphabet_are_refused(name: str) -> None:
    with refused("BAD_TEXT"):
        Reader(cbor2.dumps(name)).id()


@pytest.mark.parametrize("size", [0, 33])
def test_ids_of_the_wrong_length_are_refused(size: int) -> None:
    with refused("OUT_OF_RANGE"):
        Reader(cbor2.dumps("a" * size)).id()


def test_text_is_read_exactly_when_it_is_utf8() -> None:
    good = [
        "",
        "Crème brûlée",
        "日本酒",
        "🍕",
        "\u0000",
        "\ud7ff",
        "\ue000",
        "\U0010ffff",
        "\x7f\x80\u07ff\u0800",
    ]
    for text in good:
        assert Reader(cbor2.dumps(text)).tstr(0, 99) == text
    bad = ["80", "c080", "c1bf", "e08080", "e09fbf", "eda080", "edbfbf", "f08080bf", "f08fbfbf", "f4908080"]
    bad += ["f5808080", "ff", "fe", "c2", "e282", "f09f8d", "c241", "e28241", "41c3", "f09f41"]
    for data in (bytes.fromhex(text) for text in bad):
        with refused("BAD_TEXT"):
            Reader(bytes((0x60 | len(data),)) + data).tstr(0, 99)
