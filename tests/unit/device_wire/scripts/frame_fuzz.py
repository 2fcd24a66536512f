# Seeded fuzzing of the decoders inside an interpreter: whatever the bytes, a WireError or a value, nothing
# else.
#
#   frame_fuzz.py FIRMWARE_DIR CASES ROUNDS SEED
#
# CASES: as for frame_judge.py; its frames are the seeds that get edited. Prints the number of rounds, the
# number of refusals and a hash over all verdicts, which is the same on every interpreter.
import sys
from binascii import hexlify, unhexlify
from hashlib import sha256

from frame_judge import Judge


class Dice:
    # A linear congruential generator (Numerical Recipes): the same rolls on every interpreter.
    def __init__(self, seed):
        self.state = seed

    def roll(self, bound):
        self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self.state >> 8) % bound


def edit(dice, good):
    data = bytearray(good)
    for _ in range(1 + dice.roll(3)):
        position = dice.roll(len(data))
        kind = dice.roll(4)
        if kind == 0:
            data[position] ^= 1 << dice.roll(8)
        elif kind == 1:
            data[position] = dice.roll(256)
        elif kind == 2:
            data = data[: position + 1]
        else:
            data = data[:position] + bytes((dice.roll(256),)) + data[position:]
    return bytes(data)


def main(firmware, cases, rounds, seed):
    sys.path.insert(0, firmware)
    with open(cases) as lines:
        _, root, server, site, device, sid, th8, s2d = lines.readline().split()
        seeds = [line.split() for line in lines]
    judge = Judge(
        unhexlify(root), unhexlify(server), site, device, unhexlify(sid), unhexlify(th8), unhexlify(s2d)
    )
    dice = Dice(seed)
    verdicts = sha256(b"")
    refused = 0
    for _ in range(rounds):
        kind, frame = seeds[dice.roll(len(seeds))]
        verdict = judge.judge(kind, edit(dice, unhexlify(frame)))
        verdicts.update(verdict.encode())
        refused += verdict.startswith("refused")
    print(rounds, refused, hexlify(verdicts.digest()[:8]).decode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
