"""Measurements, verdicts and every form a result is written in."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.console import Console

from bench.errors import BenchError
from bench.measure import ERROR, FAIL, PASS, SKIP, measurement, percentile, within
from bench.report import html, junit, table
from bench.results import BoardInfo, CaseResult, RunResult, SuiteResult, from_json, to_json

CASE_KEYS = {"name", "outcome", "detail"}
SUITE_KEYS = {"name", "outcome", "seconds", "cases", "measurements"}
MEASUREMENT_KEYS = {"name", "value", "unit", "limit", "outcome", "samples", "spread"}


def make_run() -> RunResult:
    run = RunResult(7, BoardInfo("qemu", "abc", "1.25.0", "0123"), datetime(2026, 11, 23, 6, 0, tzinfo=UTC))
    signing = SuiteResult("signing", seconds=3.1)
    signing.cases = [
        CaseResult("good", PASS, "616 bits", 0.5),
        CaseResult("bad", FAIL, "saw <b>1</b> & 2", 1.0, "\x00console\x1b[0m of t-0001"),
        CaseResult("left_out", SKIP, "board process has no instret"),
    ]
    signing.measurements = [
        measurement("rate", 812.0, "1/s", ">= 500", [790, 812, 830, 840, 805]),
        measurement("latency", 9.5, "ms", None, [float(n) for n in range(100)]),
    ]
    run.suites = [signing]
    return run


@pytest.mark.parametrize(
    ("value", "limit", "kept"),
    [
        (5, ">= 5", True),
        (4.9, ">= 5", False),
        (5, "<= 5", True),
        (5, "< 5", False),
        (0, "== 0", True),
        (9, None, True),
    ],
)
def test_a_limit_is_kept_or_not(value: float, limit: str | None, kept: bool) -> None:
    assert within(value, limit) is kept


def test_an_unreadable_limit_is_an_error_not_a_pass() -> None:
    with pytest.raises(BenchError, match="limit"):
        measurement("x", 1, "s", "about 5")


def test_percentiles_are_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 50) == 3.0
    with pytest.raises(BenchError):
        percentile([], 50)


def test_the_json_has_exactly_the_agreed_shape() -> None:
    data = json.loads(json.dumps(to_json(make_run())))
    assert set(data) == {"schema", "started", "seed", "board", "outcome", "suites"}
    assert data["schema"] == "tableside.bench/1"
    assert data["started"] == "2026-11-23T06:00:00Z"
    assert set(data["board"]) == {"name", "firmware", "micropython", "commit"}
    suite = data["suites"][0]
    assert set(suite) == SUITE_KEYS
    assert all(set(case) == CASE_KEYS for case in suite["cases"])
    assert all(set(figure) == MEASUREMENT_KEYS for figure in suite["measurements"])
    rate = suite["measurements"][0]
    assert (rate["samples"], rate["spread"], rate["outcome"]) == (5, [790, 840], "pass")


def test_the_worst_part_decides_and_a_skip_does_not() -> None:
    run = make_run()
    assert run.outcome == FAIL
    run.suites[0].cases.pop(1)
    assert run.outcome == PASS
    run.suites[0].measurements.append(measurement("slow", 1, "1/s", ">= 2"))
    assert run.outcome == FAIL
    run.suites[0].cases.append(CaseResult("broken", ERROR))
    assert run.outcome == ERROR


def test_a_result_file_reads_back_as_itself() -> None:
    data = to_json(make_run())
    assert to_json(from_json(data)) == data


@pytest.mark.parametrize("damage", [{"schema": "other/1"}, {"suites": [{}]}, {"board": {"nonsense": 1}}])
def test_a_foreign_or_damaged_result_file_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(BenchError):
        from_json({**to_json(make_run()), **damage})


def test_junit_counts_what_happened_and_survives_console_bytes() -> None:
    root = ElementTree.fromstring(junit.render(make_run()))
    suite = root.find("testsuite")
    assert suite is not None
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    failure = suite.find("testcase[@name='bad']/failure")
    assert failure is not None
    assert failure.get("message") == "saw <b>1</b> & 2"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_html_page_is_one_offline_file_with_plots_and_folded_consoles() -> None:
    text = html.render(make_run(), "build/runs/x")
    page = _Page()
    page.feed(text)
    assert page.links == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    assert {"polyline", "details"} <= set(page.tags)
    assert "saw &lt;b&gt;1&lt;/b&gt; &amp; 2" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_table_names_what_failed_and_why() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    table.write(make_run(), console)
    text = console.export_text()
    for words in ("signing bad", "saw <b>1</b> & 2", "1 fail, 1 skip"):
        assert words in text
