"""Fixed-shape checks on decoded values: each returns its argument with a type, or refuses it.

`what` names the field in the words of `seal.cddl`; it ends up in the refusal's detail.
"""

import re

from server.wire.cbor import Value
from server.wire.errors import Refusal, RefusalCode

U32_MAX = 0xFFFF_FFFF
UNIX_TIME_MAX = 9_007_199_254_740_991
_ID = re.compile(r"[a-z0-9-]{1,32}")


def bad_shape(what: str) -> Refusal:
    """Return the refusal for a field that has another shape than `seal.cddl` gives it."""
    return Refusal(RefusalCode.BAD_SHAPE, f"{what} has the wrong shape")


def array(value: Value, low: int, high: int, what: str) -> list[Value]:
    """Return `value` as a list of `low`..`high` elements. Raises: Refusal(BAD_SHAPE)."""
    if not isinstance(value, list) or not low <= len(value) <= high:
        raise bad_shape(what)
    return value


def integer(value: Value, low: int, high: int, what: str) -> int:
    """Return `value` as an integer in `low`..`high`. Raises: Refusal(BAD_SHAPE)."""
    if type(value) is not int or not low <= value <= high:
        raise bad_shape(what)
    return value


def u32(value: Value, what: str) -> int:
    """Return `value` as an unsigned 32-bit integer. Raises: Refusal(BAD_SHAPE)."""
    return integer(value, 0, U32_MAX, what)


def binary(value: Value, low: int, high: int, what: str) -> bytes:
    """Return `value` as a byte string of `low`..`high` bytes. Raises: Refusal(BAD_SHAPE)."""
    if not isinstance(value, bytes) or not low <= len(value) <= high:
        raise bad_shape(what)
    return value


def exactly(value: Value, size: int, what: str) -> bytes:
    """Return `value` as a byte string of `size` bytes. Raises: Refusal(BAD_SHAPE)."""
    return binary(value, size, size, what)


def text(value: Value, low: int, high: int, what: str) -> str:
    """Return `value` as text of `low`..`high` UTF-8 bytes. Raises: Refusal(BAD_SHAPE)."""
    if not isinstance(value, str) or not low <= len(value.encode()) <= high:
        raise bad_shape(what)
    return value


def identifier(value: Value, what: str) -> str:
    """Return `value` as a site, device or table id: 1 to 32 of [a-z0-9-]. Raises: Refusal(BAD_SHAPE)."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise bad_shape(what)
    return value


def is_identifier(text_: str) -> bool:
    """Tell whether some text is an acceptable site, device or table id."""
    return _ID.fullmatch(text_) is not None
