# Why a frame or a key was refused. Every decoder and verifier raises WireError and nothing else, whatever the
# input.

TRUNCATED = "TRUNCATED"  # the bytes end inside an item
TRAILING = "TRAILING"  # bytes after the one item that belongs here
TOO_LARGE = "TOO_LARGE"  # longer than this kind of frame may be
WRONG_TYPE = "WRONG_TYPE"  # another CBOR type, an indefinite length, a float, an unexpected tag
NOT_SHORTEST = "NOT_SHORTEST"  # an integer or length not in its shortest form
OUT_OF_RANGE = "OUT_OF_RANGE"  # a number, length or count outside its bounds
BAD_TEXT = "BAD_TEXT"  # not UTF-8, or not an id
BAD_ENVELOPE = "BAD_ENVELOPE"  # not the exact COSE envelope: tag, algorithm, header maps
WRONG_KEY = "WRONG_KEY"  # key id or session id of somebody else
BAD_TAG = "BAD_TAG"  # the MAC does not verify
BAD_SIGNATURE = "BAD_SIGNATURE"  # the RSA signature does not verify
BAD_KEY = "BAD_KEY"  # a key that is not RSA-2048/3072 with e = 65537 in the expected encoding
KEY_FAULT = "KEY_FAULT"  # a private operation failed its self-check; nothing left the device
BAD_RECORD = "BAD_RECORD"  # the provisioning record is absent or damaged
WRONG_SITE = "WRONG_SITE"  # a frame for another restaurant
WRONG_PURPOSE = "WRONG_PURPOSE"  # a certificate for another use
STALE = "STALE"  # older than what this device has already seen
WRONG_STATE = "WRONG_STATE"  # the session is not where this step belongs
SEQUENCE_SPENT = "SEQUENCE_SPENT"  # no message number left in this session
UNSOLICITED = "UNSOLICITED"  # an answer to something this device did not ask


class WireError(Exception):
    # code is one of the names above; it is all a caller, a log line or a counter needs.
    def __init__(self, code):
        super().__init__(code)
        self.code = code
