"""The run as one HTML file: no network, no scripts, plots as inline SVG, consoles folded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.measure import Measurement, percentile
from bench.report.table import figure, spread
from bench.results import RunResult

_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN = 260, 44, 8
_CURVE_SAMPLES = 20


@dataclass(frozen=True)
class _Scale:
    """Maps a value to an x position of a plot."""

    low: float
    high: float

    def x(self, value: float) -> float:
        width = _PLOT_WIDTH - 2 * _MARGIN
        return round(_MARGIN + width * (value - self.low) / ((self.high - self.low) or 1), 1)


def render(run: RunResult, artefacts: str = "") -> str:
    """The page's text; `artefacts` names the folder with everything else."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["spread"] = spread
    environment.filters["plot"] = plot
    return environment.get_template("report.html.j2").render(run=run, artefacts=artefacts)


def plot(m: Measurement) -> Markup:
    """A small picture of a measurement: a percentile curve of many observations, else value and spread."""
    if len(m.values) >= _CURVE_SAMPLES and max(m.values) > min(m.values):
        return _curve(m)
    return _range(m)


def _limit_value(m: Measurement) -> float | None:
    return float(m.limit.split(" ")[1]) if m.limit else None


def _limit_line(x: float) -> str:
    return f'<line class="limit" x1="{x}" x2="{x}" y1="6" y2="{_PLOT_HEIGHT - 6}"/>'


def _range(m: Measurement) -> Markup:
    limit = _limit_value(m)
    low, high = m.spread
    edges = [low, high, m.value, *([limit] if limit is not None else []), 0.0]
    scale = _Scale(min(edges), max(edges) * 1.05 or 1.0)
    middle = _PLOT_HEIGHT / 2
    parts = [
        f'<line class="axis" x1="{_MARGIN}" x2="{_PLOT_WIDTH - _MARGIN}" y1="{middle}" y2="{middle}"/>',
        f'<line class="spread" x1="{scale.x(low)}" x2="{scale.x(high)}" y1="{middle}" y2="{middle}"/>',
        f'<circle class="{m.outcome}" cx="{scale.x(m.value)}" cy="{middle}" r="5"/>',
    ]
    if limit is not None:
        parts.append(_limit_line(scale.x(limit)))
    return _svg(m, parts)


def _curve(m: Measurement) -> Markup:
    """Percentiles 0 to 100 upwards, the value along x."""
    scale = _Scale(min(m.values), max(m.values))
    height = _PLOT_HEIGHT - 2 * _MARGIN
    points = " ".join(
        f"{scale.x(percentile(m.values, p))},{_MARGIN + height * (1 - p / 100):.1f}"
        for p in (*range(1, 100), 100)
    )
    limit = _limit_value(m)
    parts = [f'<polyline class="curve" points="{points}"/>']
    if limit is not None and scale.low <= limit <= scale.high:
        parts.append(_limit_line(scale.x(limit)))
    return _svg(m, parts)


def _svg(m: Measurement, parts: list[str]) -> Markup:
    label = Markup("{} {}").format(figure(m.value), m.unit)
    body = Markup("".join(parts))  # only numbers and our own class names
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _PLOT_WIDTH, _PLOT_HEIGHT, label, body
    )
