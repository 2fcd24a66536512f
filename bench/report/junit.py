"""The run as JUnit XML, one testsuite a suite; a figure outside its limit is a failed testcase of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bench.measure import ERROR, FAIL, PASS, SKIP
from bench.results import RunResult, SuiteResult

_TAGS = {FAIL: "failure", ERROR: "error", SKIP: "skipped"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def render(run: RunResult) -> str:
    """The XML text."""
    root = ElementTree.Element("testsuites", name=f"tableside bench ({run.board.name})")
    for suite in run.suites:
        root.append(_suite(suite, run))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(suite: SuiteResult, run: RunResult) -> ElementTree.Element:
    outcomes = [c.outcome for c in suite.cases] + [m.outcome for m in suite.measurements]
    element = ElementTree.Element(
        "testsuite",
        name=suite.name,
        tests=str(len(outcomes)),
        failures=str(outcomes.count(FAIL)),
        errors=str(outcomes.count(ERROR)),
        skipped=str(outcomes.count(SKIP)),
        time=f"{suite.seconds:.3f}",
        timestamp=run.started.strftime("%Y-%m-%dT%H:%M:%S"),
    )
    for case in suite.cases:
        entry = ElementTree.SubElement(
            element, "testcase", classname=f"bench.{suite.name}", name=case.name, time=f"{case.seconds:.3f}"
        )
        if case.outcome != PASS:
            ElementTree.SubElement(entry, _TAGS[case.outcome], message=_clean(case.detail)).text = _clean(
                case.console
            )
    for m in suite.measurements:
        entry = ElementTree.SubElement(
            element, "testcase", classname=f"bench.{suite.name}.figures", name=m.name, time="0"
        )
        text = f"{m.value} {m.unit}, limit {m.limit}"
        if m.outcome == PASS:
            ElementTree.SubElement(entry, "system-out").text = _clean(text)
        else:
            ElementTree.SubElement(entry, _TAGS[m.outcome], message=_clean(text))
    return element


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
