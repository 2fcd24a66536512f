# "Is there an update?" and its answer, and what an operator says about one: see the update frames in
# fixtures/protocol/seal.cddl.

from .cbor import U32, Reader, enc_array_head, enc_bstr, enc_tstr, enc_uint, limit
from .cose import aad, mac0_parse, mac0_verify
from .errors import OUT_OF_RANGE, UNSOLICITED, WRONG_KEY, WRONG_STATE, WireError

MAX_FRESH_BYTES = 128
APPLICATION, IMAGE = 0, 1  # layers, in a command
CANCEL, RELEASE = 0, 1  # what it asks for
_REF_BYTES = 8


def encode_ota_ask(nonce, hardware, running, key_epoch):
    return enc_array_head(4) + enc_bstr(nonce) + enc_tstr(hardware) + enc_uint(running) + enc_uint(key_epoch)


def open_ota_fresh(frame, identity, session, nonces):
    # -> (nonce, reference of the bundle to run or b""). nonces: those of open questions. Raises WireError.
    reader = _opened(frame, "fresh", identity, session)
    reader.array(3)
    nonce = bytes(reader.bstr(16))
    ref = bytes(reader.bstr(0, _REF_BYTES))
    reader.uint(U32)
    reader.end()
    if len(ref) not in (0, _REF_BYTES):
        raise WireError(OUT_OF_RANGE)
    if nonce not in nonces:
        raise WireError(UNSOLICITED)
    return nonce, ref


def open_ota_command(frame, identity, session):
    # -> (number, layer, what). Raises WireError.
    reader = _opened(frame, "command", identity, session)
    reader.array(3)
    number, layer, what = reader.uint(U32, 1), reader.uint(IMAGE), reader.uint(RELEASE)
    reader.end()
    return number, layer, what


def _opened(frame, purpose, identity, session):
    # -> a Reader of what the server has sealed under the session's key. Raises WireError.
    limit(frame, MAX_FRESH_BYTES)
    if session.keys is None:
        raise WireError(WRONG_STATE)
    _, key, th8 = session.keys
    sid, payload, tag = mac0_parse(frame, 4)
    if sid != session.sid:
        raise WireError(WRONG_KEY)
    mac0_verify(key, aad(purpose, identity.site, identity.device, session.sid, th8), payload, tag)
    return Reader(payload)
