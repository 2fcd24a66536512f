"""Entity tags: of a menu's hash, or of the site's newest LSN for what changes only with an LSN."""

from __future__ import annotations


def lsn_etag(lsn: int) -> str:
    """The tag of what a site's reads show at an LSN."""
    return f'"lsn-{lsn}"'


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header (RFC 9110, section 13.1.2) names this tag."""
    if if_none_match is None:
        return False
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in offered or "*" in offered
