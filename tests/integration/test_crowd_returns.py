"""A whole crowd comes back at once, resumes and sends its journal again: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

from bench.benchmarks.reconnect import OPS_EACH, run

TERMINALS = 250
LONGEST_S = 60.0
GROWTH_MB = 60.0


def test_a_crowd_that_comes_back_at_once_gets_every_order_in_exactly_once(tmp_path: Path) -> None:
    found = run(TERMINALS, tmp_path, LONGEST_S)
    assert (found.back, found.missing, found.doubled) == (TERMINALS, 0, 0), found
    assert found.committed == OPS_EACH * TERMINALS
    assert found.last_s < LONGEST_S
    assert found.server_rss_most_mb - found.server_rss_before_mb < GROWTH_MB, "memory stays bounded"
