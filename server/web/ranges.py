"""Byte ranges of one representation (RFC 9110, section 14): one range per request, as downloads resume it."""

from __future__ import annotations

import re

from server.web.problems import Problem

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


def asked_range(
    header: str | None, if_range: str | None, etag: str, size_bytes: int
) -> tuple[int, int] | None:
    """First and last byte asked for, None for the whole: no range, several, or of another representation.

    Raises: Problem(416) where the range begins behind the end.
    """
    if header is None or (if_range is not None and if_range != etag):
        return None
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        wanted = min(int(last), size_bytes)
        found = (size_bytes - wanted, size_bytes - 1)
    else:
        found = (int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1)
    if found[0] >= size_bytes or (first and last and int(last) < int(first)):
        raise Problem(
            416,
            "range_not_satisfiable",
            f"The release has {size_bytes} bytes.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return found
