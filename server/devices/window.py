"""Anti-replay sliding window without bit shifting of the whole map (RFC 6479)."""

from enum import Enum

WINDOW_BITS = 1024
_WORD_BITS = 64
# One word more than the window: the word the top moves into is cleared while the window's own bits stay.
_WORDS = WINDOW_BITS // _WORD_BITS + 1


class Freshness(Enum):
    """What the window knows about a sequence number."""

    NEW = "new"
    DUPLICATE = "duplicate"
    TOO_OLD = "too old"


class ReplayWindow:
    """Remembers which of the last 1024 sequence numbers (u32, from 1) of one session were seen.

    Only authenticated sequence numbers may be given to `mark`. Memory is constant.
    """

    __slots__ = ("_top", "_words")

    def __init__(self) -> None:
        self._top = 0
        self._words = [0] * _WORDS

    @property
    def top(self) -> int:
        """The highest sequence number seen, 0 before the first."""
        return self._top

    def judge(self, seq: int) -> Freshness:
        """Tell whether `seq` was seen, without changing anything."""
        if seq > self._top:
            return Freshness.NEW
        if seq == 0 or self._top - seq >= WINDOW_BITS:
            return Freshness.TOO_OLD
        word, bit = divmod(seq, _WORD_BITS)
        seen = self._words[word % _WORDS] >> bit & 1
        return Freshness.DUPLICATE if seen else Freshness.NEW

    def mark(self, seq: int) -> Freshness:
        """Judge `seq` and remember it. Call only after its MAC verified."""
        freshness = self.judge(seq)
        if freshness is not Freshness.NEW:
            return freshness
        word, bit = divmod(seq, _WORD_BITS)
        if seq > self._top:
            old = self._top // _WORD_BITS
            for passed in range(old + 1, min(word, old + _WORDS) + 1):
                self._words[passed % _WORDS] = 0
            self._top = seq
        self._words[word % _WORDS] |= 1 << bit
        return freshness
