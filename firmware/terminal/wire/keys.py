# Keys and who vouches for them: the provisioning record, certificates, the session key schedule.
import binascii
import hashlib
from collections import namedtuple

from .cbor import U16, U32, Reader, enc_array_head, enc_bstr, enc_tstr, limit
from .cose import aad, hkdf_expand, hkdf_extract, sign1_parse, sign1_verify_steps
from .errors import BAD_RECORD, BAD_SIGNATURE, WRONG_KEY, WRONG_PURPOSE, WireError
from .rsa import PrivateKey, PublicKey

KID_BYTES = 8
MAX_CERTIFICATE_BYTES = 1024
MAX_IDENTITY_BYTES = 4096
SERVER_SIGN = "server-sign"
RELEASE = "release"

_RECORD_MAGIC = b"TSID"
_MAX_RECORD_BYTES = MAX_IDENTITY_BYTES - 12

# Who this device is: what provisioning wrote. password is the broker's, private the device's RSA key.
Identity = namedtuple(
    "Identity", ("site", "device", "table", "password", "host", "port", "root_spki", "private")
)

# A verified certificate: the key it vouches for, for which purpose, and its epoch.
Certificate = namedtuple("Certificate", ("purpose", "public", "epoch"))


def parse_identity(record):
    # record: the identity region's first bytes (at most MAX_IDENTITY_BYTES are looked at).
    # Raises WireError(BAD_RECORD) if the region is empty, damaged or of another shape.
    record = memoryview(record)[:MAX_IDENTITY_BYTES]
    if len(record) < 12 or record[:4] != _RECORD_MAGIC:
        raise WireError(BAD_RECORD)
    size = int.from_bytes(record[4:8], "big")
    if size > len(record) - 12:
        raise WireError(BAD_RECORD)
    body = record[8 : 8 + size]
    if binascii.crc32(body) != int.from_bytes(record[8 + size : 12 + size], "big"):
        raise WireError(BAD_RECORD)
    reader = Reader(body)
    reader.array(9)
    reader.uint(1, 1)
    site, device, table = reader.id(), reader.id(), reader.id()
    password = reader.tstr(1, 128)
    host = reader.tstr(1, 253)
    port = reader.uint(U16, 1)
    root_spki = bytes(reader.bstr(422))
    reader.array(8)
    n, e, _, p, q, dp, dq, qi = [int.from_bytes(reader.bstr(1, 256), "big") for _ in range(8)]
    reader.end()
    private = PrivateKey.from_parts(n, e, p, q, dp, dq, qi)
    return Identity(site, device, table, password, host, port, root_spki, private)


def root_key(identity, frozen_spki):
    # The PublicKey this device trusts: the one frozen into the image if there is one, else the provisioned
    # one. Raises WireError(WRONG_KEY) if both exist and differ.
    if frozen_spki is not None and frozen_spki != identity.root_spki:
        raise WireError(WRONG_KEY)
    return PublicKey.from_spki(identity.root_spki)


def parse_certificate(payload):
    # Returns the Certificate stated by an envelope's payload; whoever calls has verified the signature, or
    # will.
    reader = Reader(payload)
    reader.array(4)
    purpose = reader.tstr(1, 16)
    kid = reader.bstr(KID_BYTES)
    spki = reader.bstr(422)
    epoch = reader.uint(U32)
    reader.end()
    if purpose != SERVER_SIGN and purpose != RELEASE:
        raise WireError(WRONG_PURPOSE)
    public = PublicKey.from_spki(spki)
    if public.kid != kid:
        raise WireError(WRONG_KEY)
    return Certificate(purpose, public, epoch)


def certificate_steps(root, frame, purpose, site):
    # Generator; its value is the Certificate if root, a PublicKey, signed frame for this purpose and site (""
    # for a release key). Raises WireError otherwise.
    limit(frame, MAX_CERTIFICATE_BYTES)
    kid, payload, signature = sign1_parse(frame)
    if kid != root.kid:
        raise WireError(WRONG_KEY)
    certificate = parse_certificate(payload)
    if certificate.purpose != purpose:
        raise WireError(WRONG_PURPOSE)
    if not (yield from sign1_verify_steps(root, aad("cert", site, ""), payload, signature)):
        raise WireError(BAD_SIGNATURE)
    return certificate


def transcript_hash(beacon_frame, hello_frame):
    h = hashlib.sha256(beacon_frame)
    h.update(hello_frame)
    return h.digest()


def session_keys(secret, nonce_d, nonce_s, site, device, transcript):
    # Returns the session's (device to server, server to device, resume) keys, 32 bytes each.
    prk = hkdf_extract(nonce_d + nonce_s, secret)
    keys = []
    for use in ("d2s", "s2d", "resume"):
        info = enc_array_head(5) + enc_tstr("seal/1") + enc_tstr(use) + enc_tstr(site) + enc_tstr(device)
        keys.append(hkdf_expand(prk, info + enc_bstr(transcript), 32))
    return tuple(keys)
