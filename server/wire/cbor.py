"""Strict, bounded CBOR: the deterministic subset Seal/1 uses (RFC 8949 section 4.2.1).

`cbor2` builds the values, but only after `scan` has walked the bytes: a hostile length, a tag with a
meaning of its own (bignum, decimal, regular expression), a deep nesting or a float never reaches it.
Payloads of Seal/1 are made of unsigned and negative integers, byte strings, text strings and arrays; maps
exist only in COSE headers, which are compared as constant bytes elsewhere.
"""

from collections.abc import Sequence
from typing import TypeAlias

import cbor2

from server.wire.errors import Refusal, RefusalCode

Value: TypeAlias = "int | bytes | str | Sequence[Value]"

MAX_DEPTH = 6
_SMALLEST_OF_WIDTH = {24: 24, 25: 0x100, 26: 0x1_0000, 27: 0x1_0000_0000}
_UINT, _NINT, _BSTR, _TSTR, _ARRAY = range(5)


def _head(data: bytes, pos: int) -> tuple[int, int, int]:
    """Return major type, argument and the position after one item head; refuse non-shortest heads."""
    initial = data[pos]
    major, info = initial >> 5, initial & 0x1F
    pos += 1
    if info < 24:
        return major, info, pos
    smallest = _SMALLEST_OF_WIDTH.get(info)
    if smallest is None:
        raise Refusal(RefusalCode.BAD_ENCODING, "indefinite length or reserved head")
    width = 1 << (info - 24)
    argument = int.from_bytes(data[pos : pos + width], "big")
    pos += width
    if pos > len(data):
        raise Refusal(RefusalCode.BAD_ENCODING, "the bytes end inside an item head")
    if argument < smallest:
        raise Refusal(RefusalCode.BAD_ENCODING, "a length or number is not in its shortest form")
    return major, argument, pos


def scan(data: bytes) -> None:
    """Refuse everything that is not exactly one deterministic item of Seal/1's subset.

    Raises: Refusal(BAD_ENCODING, TRAILING_BYTES). Neither recursion nor allocation grows with the bytes.
    """
    end = len(data)
    pos = 0
    left = 1  # items still to come in the current array
    outer: list[int] = []
    while True:
        while left == 0:
            if not outer:
                if pos > end:
                    raise Refusal(RefusalCode.BAD_ENCODING, "a string is longer than the bytes that carry it")
                if pos < end:
                    raise Refusal(RefusalCode.TRAILING_BYTES, "bytes follow the item")
                return
            left = outer.pop()
        if pos >= end:
            raise Refusal(RefusalCode.BAD_ENCODING, "the bytes end inside an item")
        left -= 1
        initial = data[pos]
        if initial < 0x18:  # the three heads of one byte that make up most of an op, then all others
            pos += 1
            continue
        if 0x40 <= initial < 0x58:
            pos += initial - 0x3F
            continue
        if 0x80 <= initial < 0x98:
            major, argument, pos = _ARRAY, initial - 0x80, pos + 1
        else:
            major, argument, pos = _head(data, pos)
        if major == _ARRAY:
            if argument > end - pos:
                raise Refusal(RefusalCode.BAD_ENCODING, "an array is longer than the bytes that carry it")
            if len(outer) == MAX_DEPTH:
                raise Refusal(RefusalCode.BAD_ENCODING, "nested too deeply")
            outer.append(left)
            left = argument
        elif major > _ARRAY:
            raise Refusal(
                RefusalCode.BAD_ENCODING, "maps, tags, floats and simple values are not allowed here"
            )
        elif major >= _BSTR:
            pos += argument


def decode(data: bytes, max_bytes: int) -> Value:
    """Decode one deterministic item of at most `max_bytes` bytes.

    Returns ints, bytes, str and lists of them. Raises: Refusal(TOO_LARGE, BAD_ENCODING, TRAILING_BYTES).
    """
    if len(data) > max_bytes:
        raise Refusal(RefusalCode.TOO_LARGE, f"{len(data)} bytes where {max_bytes} are allowed")
    scan(data)
    try:
        value: Value = cbor2.loads(data)
    except cbor2.CBORDecodeError as error:  # text that is not UTF-8 is all that is left to go wrong
        raise Refusal(RefusalCode.BAD_ENCODING, "text is not UTF-8") from error
    return value


def encode(value: Value) -> bytes:
    """Encode ints, bytes, str and sequences of them deterministically (definite lengths, shortest heads)."""
    return cbor2.dumps(value)


def string_head(length: int, major: int = _BSTR) -> bytes:
    """Return the shortest head of a byte string of `length` (or, with `major`, of another type)."""
    if length < 24:
        return bytes((major << 5 | length,))
    if length < 0x100:
        return bytes((major << 5 | 24, length))
    if length < 0x1_0000:
        return bytes((major << 5 | 25, length >> 8, length & 0xFF))
    return bytes((major << 5 | 26,)) + length.to_bytes(4, "big")


def read_bstr(data: bytes, pos: int) -> tuple[int, int]:
    """Return start and end of the byte string whose head is at `pos`.

    Raises: Refusal(BAD_ENCODING) where there is no complete byte string in shortest form.
    """
    if pos >= len(data):
        raise Refusal(RefusalCode.BAD_ENCODING, "the bytes end before a byte string")
    major, length, start = _head(data, pos)
    if major != _BSTR:
        raise Refusal(RefusalCode.BAD_ENCODING, "a byte string was expected")
    if length > len(data) - start:
        raise Refusal(RefusalCode.BAD_ENCODING, "a string is longer than the bytes that carry it")
    return start, start + length
