# Whether a bundle was made over the image that runs here, and its compiled modules for this interpreter.
#
# A bundle takes the modules it does not carry from the image, so it runs over the one image it was made over.
# assets/image.txt names that one: 64 hex digits of the digest that the build froze into terminal.trust. The
# signed manifest has the file's hash, so an offer is judged before anything of it is fetched.

import hashlib
import sys
from binascii import hexlify

from ..compat import const

_IMAGE_FILE = "assets/image.txt"
_MODULES_FILE = "assets/modules.txt"

# The first bytes of a .mpy file (MicroPython, py/persistentcode.h): "M", version, sub-version (bits 0 and 1)
# with architecture (from bit 2 on; 0 is bytecode alone), bits of a small integer.
HEAD_BYTES = const(4)
_MAGIC = const(0x4D)
_SMALL_INT_BITS = const(31)


def own_digest():
    # -> what names the image that runs; None if nobody built one (a package that runs from files).
    try:
        from ..trust import IMAGE
    except ImportError:
        return None
    return IMAGE


def over_image(manifest, digest):
    # Whether a bundle was made over the image with this digest. One that brings the whole package need not
    # name an image. Where the image does not know its digest, its number in the manifest has to do.
    if digest is None:
        return True
    named = hashlib.sha256(hexlify(digest) + b"\n").digest()
    overlays = False
    for path, _, file_hash in manifest.files:
        if path == _IMAGE_FILE:
            return file_hash == named
        overlays = overlays or path == _MODULES_FILE
    return not overlays


def is_loadable(head, own=None):
    # Whether the interpreter loads a .mpy file that begins so. own: its sys.implementation._mpy.
    if own is None:
        own = getattr(sys.implementation, "_mpy", 0)
    if len(head) < HEAD_BYTES or head[0] != _MAGIC or head[1] != own & 255 or head[3] > _SMALL_INT_BITS:
        return False
    architecture = head[2] >> 2
    return not architecture or (architecture == own >> 10 & 15 and head[2] & 3 == own >> 8 & 3)
