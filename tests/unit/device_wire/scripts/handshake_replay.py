# Replays the vectors' handshake through the terminal's session with the vectors' own random draws: the Hello,
# the sealed orders, the opened reply and the Resume that follows must come out byte for byte. Runs on CPython
# and MicroPython.
#
#   handshake_replay.py FIRMWARE_DIR CASE
#
# CASE: lines of "name hex" (or "name text" for site, device and table). Prints "ok" or the first difference.
import sys
from binascii import hexlify, unhexlify


class Identity:
    def __init__(self, site, device, private):
        self.site = site
        self.device = device
        self.private = private


class Counters:
    def __init__(self, handshake):
        self.handshake = handshake
        self.mark = (0, 0)
        self.values = {}

    def beacon(self):
        return self.mark

    def store_beacon(self, epoch, counter):
        self.mark = (epoch, counter)

    def next_handshake(self):
        self.handshake += 1
        return self.handshake - 1

    def get(self, key):
        return self.values.get(key)

    def put(self, key, value):
        self.values[key] = value


def replay(case):
    from terminal.session import ESTABLISHED, Session
    from terminal.wire import rsa

    draws = [case[name] for name in ("nonce_d", "secret", "oaep_seed", "salt", "blind", "resume-nonce_d")]

    def random(size):
        draw = draws.pop(0)
        assert len(draw) == size
        return draw

    private = rsa.PrivateKey.from_parts(*[int.from_bytes(case[name], "big") for name in PRIVATE_PARTS])
    identity = Identity(case["site"].decode(), case["device"].decode(), private)
    root = rsa.PublicKey.from_spki(case["root"])
    number = {name: int.from_bytes(case[name], "big") for name in NUMBERS}
    session = Session(identity, root, Counters(number["handshake"]), random, number["firmware"])
    session.on_beacon(case["beacon"])
    hello = rsa.run_now(session.hello_steps(number["menu"], number["pending"]))
    if bytes(hello) != case["hello"]:
        return "the Hello differs: " + hexlify(hello).decode()
    outcome = rsa.run_now(session.answer_steps(case["accept"]))
    if outcome.kind != "established" or session.state != ESTABLISHED:
        return "no session"
    for name in ("order-1-line", "order-3-lines", "order-6-lines"):
        frame = session.seal(case[name + "-op"])
        if bytes(frame) != case[name]:
            return name + " differs: " + hexlify(frame).decode()
    reply = session.open(memoryview(case["reply"]))
    if reply[0] != case["reply-op-id"] or reply[1] != 0:
        return "the reply differs"
    resume = rsa.run_now(session.resume_steps(number["menu"], 2))
    if bytes(resume) != case["resume"]:
        return "the Resume differs: " + hexlify(resume).decode()
    outcome = rsa.run_now(session.answer_steps(case["resume-accept"]))
    if outcome.kind != "established" or session.sid != case["resume-sid"]:
        return "no resumed session"
    if session.sealer.inner[:64] != bytes([b ^ 0x36 for b in case["resume-d2s"]]) + b"\x36" * 32:
        return "another key than the vectors'"
    return "ok"


NUMBERS = ("handshake", "firmware", "menu", "pending")
PRIVATE_PARTS = ("n", "e", "p", "q", "dp", "dq", "qi")


def read_case(path):
    case = {}
    with open(path) as lines:
        for line in lines:
            name, _, value = line.strip().partition(" ")
            case[name] = unhexlify(value)
    return case


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(replay(read_case(sys.argv[2])))
