# RSA-2048 and RSA-3072 on plain integers: PSS verify and sign, OAEP encrypt (RFC 8017), SHA-256 throughout, e
# = 65537.
#
# A private operation takes seconds on a small chip, so every operation is a generator: it yields between
# steps of at most about two million instructions and its value is the result. Application code awaits run();
# a loader or a test calls run_now().
#
# Side channels, as far as integers of this kind allow: every private operation is blinded with a fresh random
# factor, and exponents are walked in fixed windows with one pattern of squarings and multiplications whatever
# the bits. The integer library itself is not constant-time, and table look-ups are by secret index: the
# blinding has to carry that. A signature is verified before it leaves, so that a fault cannot reveal a prime.
import hashlib

from .errors import BAD_KEY, KEY_FAULT, OUT_OF_RANGE, WireError

_E = 65537
_HASH_BYTES = 32
_SALT_BYTES = 32
_WINDOW_BITS = 5
_BLIND_BYTES = 32
_EUCLID_STEPS = 64  # divisions between two yields while inverting the blinding factor

_RSA_OID = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82"
_SPKI_PREFIX = {
    294: b"\x30\x82\x01\x22" + _RSA_OID + b"\x01\x0f\x00\x30\x82\x01\x0a\x02\x82\x01\x01\x00",
    422: b"\x30\x82\x01\xa2" + _RSA_OID + b"\x01\x8f\x00\x30\x82\x01\x8a\x02\x82\x01\x81\x00",
}
_SPKI_SUFFIX = b"\x02\x03\x01\x00\x01"


def run_now(steps):
    # Drives a generator to its value without a pause.
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


async def run(steps):
    # Drives a generator to its value, letting every other task run between two steps.
    # A cancelled task closes the generator, so that its owner can start another.
    import asyncio

    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _public_power_steps(n, base):
    # base ** 65537 % n: sixteen squarings and a multiplication. Montgomery's and Barrett's reductions were
    # measured and lose: their extra products and shifts cost more here than the library's division.
    x = base
    for _ in range(16):
        x = x * x % n
        yield
    return x * base % n


def _private_power_steps(n, base, exponent, bits):
    # base ** exponent % n with the sequence of operations fixed by bits alone.
    table = [1, base % n]
    while len(table) < 1 << _WINDOW_BITS:
        table.append(table[-1] * table[1] % n)
        if len(table) & 7 == 0:
            yield
    shift = (bits - 1) // _WINDOW_BITS * _WINDOW_BITS
    x = table[exponent >> shift]
    while shift:
        shift -= _WINDOW_BITS
        x = pow(x, 1 << _WINDOW_BITS, n) * table[exponent >> shift & (1 << _WINDOW_BITS) - 1] % n
        yield
    return x


def _inverse_steps(a, n):
    # The inverse of a modulo n by Euclid's algorithm, or 0 if there is none.
    x, next_x, b = 1, 0, n
    rounds = 0
    while b:
        q = a // b
        a, b = b, a - q * b
        x, next_x = next_x, x - q * next_x
        rounds += 1
        if rounds % _EUCLID_STEPS == 0:
            yield
    return x % n if a == 1 else 0


class PublicKey:
    def __init__(self, n, size):
        # size: modulus length in bytes, 256 or 384
        top = size * 8 - 1
        if size not in (256, 384) or n >> top != 1 or not n & 1:
            raise WireError(BAD_KEY)
        self.n = n
        self.size = size
        self.kid = hashlib.sha256(self.to_spki()).digest()[:8]

    def to_spki(self):
        # The DER SubjectPublicKeyInfo.
        length = 294 if self.size == 256 else 422
        return _SPKI_PREFIX[length] + self.n.to_bytes(self.size, "big") + _SPKI_SUFFIX

    @classmethod
    def from_spki(cls, spki):
        # spki: DER SubjectPublicKeyInfo; the one encoding of RSA-2048 or RSA-3072 with e = 65537.
        prefix = _SPKI_PREFIX.get(len(spki))
        if prefix is None:
            raise WireError(BAD_KEY)
        spki = bytes(spki)
        if not spki.startswith(prefix) or not spki.endswith(_SPKI_SUFFIX):
            raise WireError(BAD_KEY)
        body = spki[len(prefix) : -len(_SPKI_SUFFIX)]
        return cls(int.from_bytes(body, "big"), len(body))

    def power_steps(self, base):
        # Generator; its value is base ** e % n.
        return _public_power_steps(self.n, base)


class PrivateKey:
    def __init__(self, public, p, q, dp, dq, qi):
        self.public = public
        self._p = p
        self._q = q
        self._dp = dp
        self._dq = dq
        self._qi = qi

    @classmethod
    def from_parts(cls, n, e, p, q, dp, dq, qi):
        # Integers of RFC 8017 section 3.2; checked for belonging together before first use.
        if e != _E or p >> 1023 != 1 or q >> 1023 != 1 or p * q != n:
            raise WireError(BAD_KEY)
        if not (0 < qi < p and 0 < dp < p and 0 < dq < q):
            raise WireError(BAD_KEY)
        if e * dp % (p - 1) != 1 or e * dq % (q - 1) != 1 or q * qi % p != 1:
            raise WireError(BAD_KEY)
        return cls(PublicKey(n, 256), p, q, dp, dq, qi)

    def power_steps(self, m, random):
        # m ** d % n, blinded, by the Chinese remainder theorem, and checked; 0 <= m < n.
        public = self.public
        n = public.n
        inverse = 0
        while not inverse:
            blind = int.from_bytes(random(_BLIND_BYTES), "big")
            inverse = yield from _inverse_steps(blind, n)
        yield
        hidden = m * (yield from public.power_steps(blind)) % n
        p = self._p
        q = self._q
        sp = yield from _private_power_steps(p, hidden, self._dp, 1024)
        sq = yield from _private_power_steps(q, hidden, self._dq, 1024)
        s = (sq + (self._qi * (sp - sq) % p) * q) * inverse % n
        yield
        if (yield from public.power_steps(s)) != m:
            raise WireError(KEY_FAULT)
        return s


def _mgf1(seed, length):
    out = b""
    counter = 0
    while len(out) < length:
        out += hashlib.sha256(seed + counter.to_bytes(4, "big")).digest()
        counter += 1
    return out[:length]


def _xor(a, b):
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def _pss_hash(mhash, salt):
    return hashlib.sha256(bytes(8) + mhash + salt).digest()


def verify_pss_steps(public, mhash, signature):
    # RFC 8017 section 8.1.2 with a salt of exactly 32 bytes; mhash: SHA-256 of the message. Value: True or
    # False.
    size = public.size
    if len(signature) != size:
        return False
    s = int.from_bytes(signature, "big")
    if s >= public.n:
        return False
    encoded = (yield from public.power_steps(s)).to_bytes(size, "big")
    split = size - _HASH_BYTES - 1
    h = encoded[split:-1]
    if encoded[-1] != 0xBC or encoded[0] & 0x80:
        return False
    db = _xor(encoded[:split], _mgf1(h, split))
    zeros = split - _SALT_BYTES - 1
    # the first bit of the block is outside the encoded message: whatever the mask put there is dropped
    if db[0] & 0x7F or db[1:zeros] != bytes(zeros - 1) or db[zeros] != 1:
        return False
    return h == _pss_hash(mhash, db[zeros + 1 :])


def sign_pss_steps(private, mhash, random):
    # RFC 8017 section 8.1.1; random(n) returns n random bytes. Value: the signature, 256 bytes.
    size = private.public.size
    salt = random(_SALT_BYTES)
    h = _pss_hash(mhash, salt)
    split = size - _HASH_BYTES - 1
    db = bytes(split - _SALT_BYTES - 1) + b"\x01" + salt
    masked = bytearray(_xor(db, _mgf1(h, split)))
    masked[0] &= 0x7F
    m = int.from_bytes(bytes(masked) + h + b"\xbc", "big")
    s = yield from private.power_steps(m, random)
    return s.to_bytes(size, "big")


def oaep_encrypt_steps(public, message, label, random):
    # RFC 8017 section 7.1.1 with SHA-256 and MGF1-SHA-256. Value: the ciphertext, as long as the modulus.
    size = public.size
    split = size - _HASH_BYTES - 1
    room = split - _HASH_BYTES - 1 - len(message)
    if room < 0:
        raise WireError(OUT_OF_RANGE)
    db = hashlib.sha256(label).digest() + bytes(room) + b"\x01" + message
    seed = random(_HASH_BYTES)
    masked_db = _xor(db, _mgf1(seed, split))
    masked_seed = _xor(seed, _mgf1(masked_db, _HASH_BYTES))
    m = int.from_bytes(masked_seed + masked_db, "big")
    return (yield from public.power_steps(m)).to_bytes(size, "big")
