"""The points where a server is killed, by name."""

from __future__ import annotations

POINTS = {
    "begin": "a batch is taken, nothing is written",
    "commit": "everything is written, COMMIT was not said",
    "committed": "COMMIT returned, nobody knows",
    "reply": "the answer is about to leave",
    "replied": "the answer has left, its message is not acknowledged",
    "acked": "answer and acknowledgement have left",
}
