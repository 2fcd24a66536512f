# Who this terminal is: the provisioning record of the `identity` region, with what may override it.
#
# The record's format is wire/keys.py's; this file reads the region and applies two rules: an image with
# a frozen root key refuses a record that names another one, and the bench may move the broker's address
# (boot options).

from .flashlog import StorageError
from .wire.keys import MAX_IDENTITY_BYTES, Identity, parse_identity

_HEAD_BYTES = 8


def load(dev, options, frozen_root):
    # dev: block device of the `identity` region; options: the board's boot options (dict);
    # frozen_root: the image's ROOT_SPKI or None. -> wire.keys.Identity.
    # Raises WireError BAD_RECORD (empty or damaged), StorageError OTHER_ROOT.
    head = bytearray(_HEAD_BYTES)
    dev.readblocks(0, head, 0)
    size = int.from_bytes(head[4:], "big") + _HEAD_BYTES + 4
    record = bytearray(min(size, MAX_IDENTITY_BYTES))
    dev.readblocks(0, record, 0)
    found = parse_identity(record)
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
