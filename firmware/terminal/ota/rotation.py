# From one release key to the next: [old certificate, new certificate, claim by old, claim by new]. Loaded
# when such a statement arrives, which is once in years.

from ..wire.cbor import U32, Reader, limit
from ..wire.cose import aad, sign1_parse, sign1_verify_steps
from ..wire.errors import BAD_SIGNATURE, WRONG_KEY, WireError
from ..wire.keys import KID_BYTES, MAX_CERTIFICATE_BYTES, RELEASE, certificate_steps, parse_certificate

_MAX_BYTES = 4096


def _parts(frame):
    limit(frame, _MAX_BYTES)
    reader = Reader(frame)
    reader.array(4)
    parts = [reader.bstr(1, MAX_CERTIFICATE_BYTES) for _ in range(4)]
    reader.end()
    return parts


def claimed(frame):
    # -> (epoch of the old key, of the new one), nothing verified: to drop what is not needed cheaply.
    old, new, _, _ = _parts(frame)
    return parse_certificate(sign1_parse(old)[1]).epoch, parse_certificate(sign1_parse(new)[1]).epoch


def rotation_steps(root, frame):
    # Generator; ends if the root vouches for both keys and both have signed that the new one follows the old.
    # Raises WireError otherwise.
    old, new, by_old, by_new = _parts(frame)
    before = yield from certificate_steps(root, old, RELEASE, "")
    after = yield from certificate_steps(root, new, RELEASE, "")
    claims = []
    for key, envelope in ((before.public, by_old), (after.public, by_new)):
        kid, payload, signature = sign1_parse(envelope)
        if kid != key.kid:
            raise WireError(WRONG_KEY)
        if not (yield from sign1_verify_steps(key, aad("rotation", "", ""), payload, signature)):
            raise WireError(BAD_SIGNATURE)
        claims.append(_claim(payload))
    wanted = (before.public.kid, after.public.kid, before.epoch, after.epoch)
    if claims[0] != wanted or claims[1] != wanted:
        raise WireError(WRONG_KEY)


def _claim(payload):
    reader = Reader(payload)
    reader.array(4)
    claim = (bytes(reader.bstr(KID_BYTES)), bytes(reader.bstr(KID_BYTES)), reader.uint(U32), reader.uint(U32))
    reader.end()
    return claim
