# Who this terminal is: the provisioning record of the `identity` region, with what may override it.
#
# The record's format is wire/keys.py's; this file reads the region and applies two rules: an image with
# a frozen root key refuses a record that names another one, and the bench may move the broker's address
# (boot options).
#
# Each sector of the region holds the whole record. The first one that passes its CRC counts, and the other
# is made like it: rot in one copy costs nothing, and a terminal that was given only one makes the second.

from .compat import const
from .flashlog import StorageError
from .wire.errors import BAD_RECORD, WireError
from .wire.keys import MAX_IDENTITY_BYTES, Identity, parse_identity

_HEAD_BYTES = const(8)
_CRC_BYTES = const(4)
_COPIES = const(2)
_IOCTL_ERASE = const(6)
_BLANK = b"\xff" * _HEAD_BYTES


def load(dev, options, frozen_root):
    # dev: block device of the `identity` region; options: the board's boot options (dict);
    # frozen_root: the image's ROOT_SPKI or None. -> wire.keys.Identity.
    # Raises WireError BAD_RECORD (empty), StorageError IDENTITY_DAMAGED, OTHER_ROOT.
    found = _find(dev)
    root = found.root_spki
    if frozen_root is not None and bytes(frozen_root) != root:
        raise StorageError(
            "OTHER_ROOT", "the record names another root key than this image: provision it again"
        )
    return Identity(
        found.site,
        found.device,
        found.table,
        found.password,
        options.get("host", found.host),
        options.get("port", found.port),
        root,
        found.private,
    )


def _find(dev):
    is_blank = True
    for copy in range(_COPIES):
        head = _read(dev, copy, _HEAD_BYTES)
        is_blank = is_blank and head == _BLANK
        size = int.from_bytes(head[4:], "big") + _HEAD_BYTES + _CRC_BYTES
        record = _read(dev, copy, min(size, MAX_IDENTITY_BYTES))
        try:
            found = parse_identity(record)
        except WireError:
            continue
        _mend(dev, 1 - copy, record)
        return found
    if is_blank:
        raise WireError(BAD_RECORD)
    raise StorageError(
        "IDENTITY_DAMAGED",
        "both copies of the provisioning record are damaged: provision this terminal again",
    )


def _read(dev, copy, size):
    data = bytearray(size)
    dev.readblocks(copy, data, 0)
    return data


def _mend(dev, copy, record):
    # Make a copy like the one that counts. A power cut meanwhile costs this copy, not the other.
    if _read(dev, copy, len(record)) == record:
        return
    print("[identity] copy", copy, "is missing or damaged and is written anew")
    dev.ioctl(_IOCTL_ERASE, copy)
    dev.writeblocks(copy, record, 0)
