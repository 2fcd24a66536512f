"""What cannot be played is refused with a sentence before anything is built; nothing played is no success."""

from __future__ import annotations

import argparse

import pytest

from bench.boards.flashmap import FLASH_BYTES
from bench.campaign import image_plan
from bench.campaign.run import Tally
from bench.cli import campaign_lines
from bench.cli.main import build_parser, main
from bench.cli.times import duration
from bench.errors import BenchError

LAST_BIT = FLASH_BYTES * 8 - 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "one looks like: new cut=137"),
        ("  ", "one looks like: new cut=137"),
        ("new rot=99999999999", "lies behind the 16777216 bits"),
        (f"new rot={LAST_BIT + 1}", "lies behind"),
        ("new rot=-1", "below zero"),
        ("new cut=3:keep=-7", "below zero"),
        ("new link=0", "counted from 1"),
        ("new twice=0:after", "counted from 1"),
        ("bad hang=0", "counted from 1"),
        ("new chip=sick", "--layer image"),
        ("wire link=0", "counted from 1"),
        ("wire kill=0:after", "counted from 1"),
        ("wire", "one looks like: wire link=7:after"),
        ("wire link=-1", "one looks like: wire link=7:after"),
    ],
)
def test_a_line_that_cannot_be_played_is_a_usage_error(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "campaign", "--replay", line]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


@pytest.mark.parametrize("line", ["new link=3", "new chip=burnt", "new rot=99999999999", "new cut=-1"])
def test_a_line_of_another_layer_is_refused(line: str) -> None:
    with pytest.raises(BenchError) as refused:
        campaign_lines.of_image(line, 2 * FLASH_BYTES)
    assert refused.value.code == "BAD_LINE"


def test_lines_at_the_bounds_can_be_played() -> None:
    for line in (f"new cut=0 rot={LAST_BIT}", "new lose=0:seed=3", "new link=1:after", "new cut=1:keep=0"):
        assert str(campaign_lines.of_application(line)) == line
    for line in (*image_plan.CHIPS, f"new-norollback cut=0 rot={LAST_BIT + 1}"):
        assert str(campaign_lines.of_image(line, 2 * FLASH_BYTES)) == line
    assert str(campaign_lines.of_wire("wire kill=1:after")) == "wire kill=1:after"


@pytest.mark.parametrize(
    "words",
    [["--workers", "0"], ["--workers", "-1"], ["--workers", "two"], ["--kills", "0"], ["--budget", "0s"]],
)
def test_a_count_of_nothing_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser("bench").parse_args(["bench", "campaign", *words])
    assert stopped.value.code == 2
    assert repr(words[1]) in capsys.readouterr().err


def test_a_time_is_more_than_none() -> None:
    assert duration("0.5m") == 30
    for text in ("0", "0s", "0.0h"):
        with pytest.raises(argparse.ArgumentTypeError, match="no time"):
            duration(text)


def test_a_campaign_that_played_nothing_has_not_passed() -> None:
    tally = Tally(1, "process", {})
    with pytest.raises(BenchError, match="give it more"):
        campaign_lines.must_have_played(tally)
    tally.counts["states"] = 1
    campaign_lines.must_have_played(tally)
