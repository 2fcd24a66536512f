# Judges frames with the terminal's wire code; runs alike on CPython (imported) and MicroPython (as a script).
#
#   frame_judge.py FIRMWARE_DIR CASES
#
# CASES: first line "key root-spki-hex server-spki-hex site device sid-hex th8-hex s2d-hex", then one
# "kind frame-hex" per line. Prints one line per case: "accepted <hash of what was read>" or "refused CODE".
import hashlib
import sys
from binascii import hexlify, unhexlify


class Every:
    # A container of everything: whichever nonce an answer repeats, it was asked.
    def __contains__(self, nonce):
        return True


class Session:
    def __init__(self, sid, keys):
        self.sid, self.keys = sid, keys


class Judge:
    def __init__(self, root_spki, server_spki, site, device, sid, th8, s2d):
        from terminal.wire import cose, frames, keys, rsa

        self.cose, self.frames, self.keys, self.rsa = cose, frames, keys, rsa
        self.root = rsa.PublicKey.from_spki(root_spki)
        self.server = rsa.PublicKey.from_spki(server_spki)
        self.site, self.device, self.th8, self.s2d = site, device, th8, s2d
        self.opener = cose.Opener(s2d, site, device, sid, th8)
        self.session = Session(sid, (None, s2d, th8))

    def _signed(self, public, kind, kid, payload, signature):
        from terminal.wire.errors import BAD_SIGNATURE, WRONG_KEY, WireError

        if kid != public.kid:
            raise WireError(WRONG_KEY)
        external_aad = self.cose.aad(kind, "" if kind == "manifest" else self.site, "")
        steps = self.cose.sign1_verify_steps(public, external_aad, payload, signature)
        if not self.rsa.run_now(steps):
            raise WireError(BAD_SIGNATURE)

    def read(self, kind, frame):
        from terminal.wire.cbor import limit

        frames, keys, cose = self.frames, self.keys, self.cose
        if kind == "cert-frame":
            steps = keys.certificate_steps(self.root, frame, keys.SERVER_SIGN, self.site)
            certificate = self.rsa.run_now(steps)
            return (certificate.purpose, certificate.public.to_spki(), certificate.epoch)
        if kind == "beacon-frame":
            beacon = frames.parse_beacon(frame)
            self._signed(self.server, "beacon", beacon.kid, beacon.payload, beacon.signature)
            return beacon
        if kind == "accept-frame":
            limit(frame, frames.MAX_ANSWER_BYTES)
            nonce_s, payload, tag = cose.mac0_parse(frame, 16)
            cose.mac0_verify(self.s2d, cose.aad("accept", self.site, self.device, self.th8), payload, tag)
            kid, signed, _ = cose.sign1_parse(payload)
            accept = frames.parse_accept(signed)
            if accept.nonce_s != nonce_s:
                from terminal.wire.errors import UNSOLICITED, WireError

                raise WireError(UNSOLICITED)
            return (nonce_s, kid, accept)
        if kind == "reply-frame":
            return self.opener.open(frame)
        if kind == "menu-frame":
            kid, payload, signature = cose.sign1_parse(frame)
            self._signed(self.server, "menu", kid, payload, signature)
            return payload
        if kind == "manifest-frame":
            kid, payload, _ = cose.sign1_parse(frame)
            return frames.parse_manifest(payload)
        if kind == "ota-fresh-frame":
            from terminal.wire.fresh import open_ota_fresh

            return open_ota_fresh(frame, self, self.session, Every())
        if kind == "ota-rotation":
            from terminal.ota.rotation import claimed, rotation_steps

            self.rsa.run_now(rotation_steps(self.root, frame))
            return claimed(frame)
        parse = {
            "hint": frames.parse_hint,
            "menu-chunk": frames.parse_menu_chunk,
            "offer": frames.parse_offer,
            "ota-chunk": frames.parse_ota_chunk,
        }[kind]
        return parse(frame)

    def judge(self, kind, frame):
        from terminal.wire.errors import WireError

        try:
            return "accepted " + fingerprint(self.read(kind, frame))
        except WireError as refusal:
            return "refused " + refusal.code


def fingerprint(value):
    # The same text on every interpreter, whatever mixture of tuples, lists, views and bytes the value is.
    h = hashlib.sha256()
    _feed(h, value)
    return hexlify(h.digest()[:8]).decode()


def _feed(h, value):
    if isinstance(value, (tuple, list)):
        h.update(b"(")
        for part in value:
            _feed(h, part)
        h.update(b")")
    elif isinstance(value, int):
        h.update(b"%d " % value)
    else:
        h.update(value.encode() if isinstance(value, str) else bytes(value))


def main(firmware, cases):
    sys.path.insert(0, firmware)
    with open(cases) as lines:
        _, root, server, site, device, sid, th8, s2d = lines.readline().split()
        judge = Judge(
            unhexlify(root), unhexlify(server), site, device, unhexlify(sid), unhexlify(th8), unhexlify(s2d)
        )
        for line in lines:
            kind, _, frame = line.rstrip("\n").partition(" ")
            print(judge.judge(kind, unhexlify(frame)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
