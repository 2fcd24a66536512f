# Every frame of Seal/1 a terminal reads or writes, field by field in the order of
# fixtures/protocol/seal.cddl.
#
# Parsers return named tuples; byte strings inside them are views into the frame unless a comment says
# otherwise. A parsed envelope is not a verified one: signature and key id are handed out for whoever holds
# the key.
from collections import namedtuple

from .cbor import (
    MAX_TIME,
    U32,
    Reader,
    enc_array_head,
    enc_bstr,
    enc_tstr,
    enc_uint,
    limit,
)
from .cbor import put_uint as put_any_uint
from .cose import sign1_parse
from .errors import OUT_OF_RANGE, WRONG_TYPE, WireError
from .fast import put_order, put_uint

MAX_BEACON_BYTES = 2048
MAX_HELLO_BYTES = 1024
MAX_ANSWER_BYTES = 1024
MAX_MENU_BYTES = 65536
MAX_CHUNK_BYTES = 1024
MAX_CHUNKS = 64
MAX_OFFER_BYTES = 8192
MAX_OTA_CHUNK_BYTES = 4096
OTA_HASHES_PER_RUN = 32
MAX_FILES = 64
MAX_PATH_BYTES = 64

# reply status; 0..5 are final
COMMITTED = 0
REPRICE = 1
SOLD_OUT = 2
TABLE_CLOSED = 3
REJECTED = 5
# reply and hint
RATE_LIMITED = 16
# hint
UNKNOWN_SESSION = 17
HELLO_REFUSED = 18

# kid, payload, signature: of the envelope. certificate: the whole certificate frame.
Beacon = namedtuple(
    "Beacon",
    (
        "kid",
        "payload",
        "signature",
        "site",
        "epoch",
        "counter",
        "time",
        "nonce",
        "decrypt",
        "menu_version",
        "menu_hash",
        "minimum_firmware",
        "certificate",
    ),
)
Accept = namedtuple(
    "Accept",
    (
        "sid",
        "nonce_s",
        "hello_hash",
        "time",
        "ttl_s",
        "window",
        "table",
        "menu_version",
        "menu_hash",
        "committed",
    ),
)
Reply = namedtuple("Reply", ("op_id", "status", "arg", "order_number", "total_minor", "lsn", "chain"))
Hint = namedtuple("Hint", ("status", "ref", "arg"))
MenuChunk = namedtuple("MenuChunk", ("version", "index", "count", "data"))
Offer = namedtuple("Offer", ("manifest", "certificate"))
Manifest = namedtuple(
    "Manifest",
    (
        "product",
        "hardware",
        "group",
        "version",
        "floor",
        "firmware_min",
        "firmware_max",
        "size",
        "chunk_size",
        "files",
        "chunks",
    ),
)
OtaChunk = namedtuple("OtaChunk", ("ref", "what", "index", "data"))


# ---------------------------------------------------------------- from the server


def parse_beacon(frame):
    limit(frame, MAX_BEACON_BYTES)
    kid, payload, signature = sign1_parse(frame)
    reader = Reader(payload)
    reader.array(10)
    beacon = Beacon(
        kid,
        payload,
        signature,
        reader.id(),
        reader.uint(U32),
        reader.uint(U32),
        reader.uint(MAX_TIME),
        reader.bstr(16),
        reader.bstr(294),
        reader.uint(U32),
        reader.bstr(32),
        reader.uint(U32),
        reader.bstr(1, 1024),
    )
    reader.end()
    return beacon


def parse_accept(payload):
    # payload: of the inner Sign1. All byte strings are copies: they outlive the frame.
    reader = Reader(payload)
    reader.array(10)
    accept = Accept(
        bytes(reader.bstr(4)),
        bytes(reader.bstr(16)),
        bytes(reader.bstr(32)),
        reader.uint(MAX_TIME),
        reader.uint(U32),
        reader.uint(255, 1),
        reader.id(),
        reader.uint(U32),
        bytes(reader.bstr(32)),
        reader.uint(MAX_TIME),
    )
    reader.end()
    return accept


def is_hint(frame):
    # Hints are bare arrays; everything else on an answer topic begins with a COSE tag.
    return len(frame) > 0 and frame[0] == 0x83


def parse_hint(frame):
    limit(frame, 32)
    reader = Reader(frame)
    reader.array(3)
    hint = Hint(reader.uint(31, 16), bytes(reader.bstr(0, 16)), reader.uint(U32))
    reader.end()
    return hint


def parse_menu_chunk(frame):
    limit(frame, MAX_CHUNK_BYTES + 32)
    reader = Reader(frame)
    reader.array(4)
    chunk = MenuChunk(
        reader.uint(U32),
        reader.uint(MAX_CHUNKS - 1),
        reader.uint(MAX_CHUNKS, 1),
        reader.bstr(0, MAX_CHUNK_BYTES),
    )
    reader.end()
    if chunk.index >= chunk.count:
        raise WireError(OUT_OF_RANGE)
    return chunk


def parse_offer(frame):
    limit(frame, MAX_OFFER_BYTES)
    reader = Reader(frame)
    reader.array(2)
    offer = Offer(reader.bstr(1, MAX_OFFER_BYTES), reader.bstr(1, 1024))
    reader.end()
    return offer


def parse_manifest(payload):
    # payload: of a verified manifest envelope. files: list of (path, size, hash as bytes).
    reader = Reader(payload)
    reader.array(11)
    product = reader.tstr(1, 32)
    if product != "tableside":
        raise WireError(WRONG_TYPE)
    hardware = reader.tstr(1, 32)
    group = reader.tstr(0, 32)
    numbers = [reader.uint(U32) for _ in range(5)]
    chunk_size = reader.uint(MAX_OTA_CHUNK_BYTES, 256)
    files = []
    for _ in range(reader.array((1, MAX_FILES))):
        reader.array(3)
        files.append((reader.tstr(1, MAX_PATH_BYTES), reader.uint(U32), bytes(reader.bstr(32))))
    chunks = bytes(reader.bstr(32))
    reader.end()
    version, floor, firmware_min, firmware_max, size = numbers
    return Manifest(
        product, hardware, group, version, floor, firmware_min, firmware_max, size, chunk_size, files, chunks
    )


def parse_ota_chunk(frame):
    limit(frame, MAX_OTA_CHUNK_BYTES + 32)
    reader = Reader(frame)
    reader.array(4)
    ref = reader.bstr(8)
    what = reader.uint(1)
    index = reader.uint(U32)
    data = reader.bstr(0, MAX_OTA_CHUNK_BYTES if what else 32 * OTA_HASHES_PER_RUN)
    reader.end()
    return OtaChunk(ref, what, index, data)


# ---------------------------------------------------------------- to the server


def encode_hello(
    device, handshake, nonce_d, beacon_counter, beacon_hash, secret, firmware, menu_version, pending
):
    # The payload of a Hello; secret: 256 bytes of OAEP ciphertext.
    return (
        enc_array_head(9)
        + enc_tstr(device)
        + enc_uint(handshake)
        + enc_bstr(nonce_d)
        + enc_uint(beacon_counter)
        + enc_bstr(beacon_hash)
        + enc_bstr(secret)
        + enc_uint(firmware)
        + enc_uint(menu_version)
        + enc_uint(pending)
    )


def encode_resume(device, handshake, nonce_d, beacon_counter, beacon_hash, firmware, menu_version, pending):
    # The payload of a Resume.
    return (
        enc_array_head(8)
        + enc_tstr(device)
        + enc_uint(handshake)
        + enc_bstr(nonce_d)
        + enc_uint(beacon_counter)
        + enc_bstr(beacon_hash)
        + enc_uint(firmware)
        + enc_uint(menu_version)
        + enc_uint(pending)
    )


def encode_order(op_id, table, lines, menu_version, total_minor):
    # lines: 1..32 of (item id, quantity, modifier ids). Returns the op that is journaled, hashed and sealed.
    # Raises WireError(OUT_OF_RANGE) if the server could not accept it.
    count = len(lines)
    if count < 1 or count > 32:
        raise WireError(OUT_OF_RANGE)
    out = bytearray(60 + 32 * count)
    pos = put_order(out, op_id, table.encode(), lines)
    if pos < 0 or not (0 <= menu_version <= U32 and 0 <= total_minor <= U32):
        raise WireError(OUT_OF_RANGE)
    if menu_version < 0x40000000 and total_minor < 0x40000000:
        pos = put_uint(out, put_uint(out, pos, 0, menu_version), 0, total_minor)
    else:
        pos = put_any_uint(out, put_any_uint(out, pos, 0, menu_version), 0, total_minor)
    return bytes(out[:pos])


def encode_presence(online, running, menu_version, pending):
    # online: 0 or 1; running: release number.
    return (
        enc_array_head(4) + enc_uint(online) + enc_uint(running) + enc_uint(menu_version) + enc_uint(pending)
    )


def encode_ota_get(ref, what, first, count):
    # what: 0 runs of 32 chunk hashes, 1 chunks; count: 1..16.
    return enc_array_head(4) + enc_bstr(ref) + enc_uint(what) + enc_uint(first) + enc_uint(count)


def encode_ota_state(running, slot, state, offset, reason, ref=None):
    # ref: the beginning of the name of the bundle this is about, b"" for none; None leaves it unsaid.
    frame = (
        enc_array_head(5 if ref is None else 6)
        + enc_uint(running)
        + enc_uint(slot)
        + enc_uint(state)
        + enc_uint(offset)
        + enc_uint(reason)
    )
    return frame if ref is None else frame + enc_bstr(ref)
