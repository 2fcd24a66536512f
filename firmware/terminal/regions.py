# The flash map: one table for every board, pure data.
#
# Offsets count from the start of the board's flash bank. An ESP32 has partitions of the same names
# (firmware/boards/esp32/partitions.csv), only their offsets differ there.

SECTOR_BYTES = 4096  # the smallest unit an erase can take
PAGE_BYTES = 256  # the largest unit one program step takes

CONTROL = "control"  # OTA control record
COUNTERS = "counters"  # boot, handshake and beacon counters, small values
IDENTITY = "identity"  # provisioning record, written by the bench or `tableside firmware provision`
JOURNAL = "journal"  # outbox ring
IMAGE = "image"  # which firmware image is in which partition; chips with two of them only
VFS = "vfs"  # littlefs2: slots, menu, settings

# name, offset, size (bytes)
REGIONS = (
    (CONTROL, 0x000000, 0x002000),
    (COUNTERS, 0x002000, 0x004000),
    (IDENTITY, 0x006000, 0x002000),
    (JOURNAL, 0x008000, 0x010000),
    (IMAGE, 0x018000, 0x002000),
    (VFS, 0x020000, 0x1E0000),
)

FLASH_BYTES = 0x200000  # what the map spans; bytes outside every region stay 0xFF


def find(name):
    # -> (offset, size) of one region; KeyError for a name the map does not have.
    for region, offset, size in REGIONS:
        if region == name:
            return offset, size
    raise KeyError(name)
