"""External AAD of every envelope: what a signature or MAC binds besides its payload (`aad` in the CDDL)."""

from server.wire.cbor import encode

PROTOCOL = "seal/1"


def certificate(site: str) -> bytes:
    """Bind a certificate to its site; release certificates have the site ""."""
    return encode([PROTOCOL, "cert", site, ""])


def beacon(site: str) -> bytes:
    """Bind a beacon to its site."""
    return encode([PROTOCOL, "beacon", site, ""])


def menu(site: str) -> bytes:
    """Bind a menu to its site."""
    return encode([PROTOCOL, "menu", site, ""])


def manifest() -> bytes:
    """Bind a manifest to its purpose only: it may go to every site its group names."""
    return encode([PROTOCOL, "manifest", "", ""])


def hello(site: str, device: str) -> bytes:
    """Bind a Hello to site and device."""
    return encode([PROTOCOL, "hello", site, device])


def oaep_label(site: str, device: str) -> bytes:
    """Return the OAEP label of the session secret."""
    return encode([PROTOCOL, "oaep", site, device])


def accept_signed(site: str, device: str) -> bytes:
    """Bind the signature inside an Accept to site and device."""
    return encode([PROTOCOL, "accept", site, device])


def accept(site: str, device: str, th8: bytes) -> bytes:
    """Bind the MAC around an Accept to site, device and transcript."""
    return encode([PROTOCOL, "accept", site, device, th8])


def resume(site: str, device: str, sid: bytes) -> bytes:
    """Bind a Resume to site, device and the session it uses up."""
    return encode([PROTOCOL, "resume", site, device, sid])


def bill(site: str, device: str) -> bytes:
    """Bind a device's seal over a bill to site and device."""
    return encode([PROTOCOL, "bill", site, device])


def op(site: str, device: str, sid: bytes, th8: bytes) -> bytes:
    """Bind an op to site, device, session and transcript."""
    return encode([PROTOCOL, "op", site, device, sid, th8])


def reply(site: str, device: str, sid: bytes, th8: bytes) -> bytes:
    """Bind a reply to site, device, session and transcript."""
    return encode([PROTOCOL, "reply", site, device, sid, th8])


def notice(site: str, device: str, sid: bytes, th8: bytes) -> bytes:
    """Bind a notice to site, device, session and transcript."""
    return encode([PROTOCOL, "notice", site, device, sid, th8])


def fresh(site: str, device: str, sid: bytes, th8: bytes) -> bytes:
    """Bind the answer to "is there an update" to site, device, session and transcript."""
    return encode([PROTOCOL, "fresh", site, device, sid, th8])


def rotation() -> bytes:
    """Bind the statement that one release key follows another to its purpose only."""
    return encode([PROTOCOL, "rotation", "", ""])


def command(site: str, device: str, sid: bytes, th8: bytes) -> bytes:
    """Bind an operator's command about updates to site, device, session and transcript."""
    return encode([PROTOCOL, "command", site, device, sid, th8])
