"""The figures as a table, as JSON, as Markdown and as a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape

from .operations import BARE
from .rounds import Row

_HEADINGS = ("CPU µs", "ratio", "wall µs", "ratio", "p50", "p95", "p99", "calls", "units")
# One for each client, in the order of the table; boto3 has the first.
_COLOURS = ("#8a8f98", "#2563eb", "#ea8600", "#15803d", "#9333ea", "#dc2626", "#0891b2")
_LINE, _NAMES, _BARS, _MARGIN = 14, 190, 520, 24


def as_json(about: Mapping[str, Any], rows: Sequence[Row], skipped: Mapping[str, str]) -> str:
    """Return one JSON object: ``about`` the run, ``rows``, and why clients were ``skipped``."""
    found = {**about, "rows": [asdict(row) for row in rows], "skipped": dict(skipped)}
    return json.dumps(found, indent=2)


def as_table(rows: Sequence[Row]) -> str:
    """Return a line for each operation and client, with every figure."""
    width = max((len(row.operation) for row in rows), default=0)
    names = max((len(row.subject) for row in rows), default=0)
    lines = [f"{'':{width}}  {'':{names}}" + "".join(f"{each:>10}" for each in _HEADINGS)]
    previous = ""
    for row in rows:
        name = "" if row.operation == previous else row.operation
        previous = row.operation
        figures = [
            _number(row.cpu), _two(row.ratio), _number(row.wall), _two(row.wall_ratio),
            _number(row.p50), _number(row.p95), _number(row.p99), _two(row.requests),
            _two(row.units),
        ]  # fmt: skip
        lines.append(
            f"{name:{width}}  {row.subject:{names}}" + "".join(f"{each:>10}" for each in figures)
        )
    return "\n".join(lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """
    Return a line for each operation: boto3's CPU time, and the CPU ratio of each other client. What
    boto3 cannot do has the CPU time instead.
    """
    others = [name for name in dict.fromkeys(row.subject for row in rows) if name != BARE]
    lines = [
        f"| Operation | {BARE}, CPU | {' | '.join(others)} |",
        "| --- |" + " ---: |" * (1 + len(others)),
    ]
    for operation in dict.fromkeys(row.operation for row in rows):
        found = {row.subject: row for row in rows if row.operation == operation}
        bare = _time(found[BARE]) if BARE in found else ""
        cells = [_cell(found[name]) if name in found else "" for name in others]
        lines.append(f"| {operation} | {bare} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_svg(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return a chart of the CPU ratios: a bar for each operation and client, and a line at 1."""
    rows = [row for row in rows if row.ratio is not None and row.subject != BARE]
    subjects = list(dict.fromkeys(row.subject for row in rows))
    colours = dict(zip(subjects, [*_COLOURS[1:]] * len(subjects), strict=False))
    longest = max([1.2, *(row.ratio or 0.0 for row in rows)])
    parts, y, previous = [], 3 * _MARGIN, ""
    for row in rows:
        if row.operation != previous:
            y += _LINE // 2
            previous = row.operation
            parts.append(_text(_NAMES - 8, y + 10, row.operation, 'text-anchor="end"'))
        ratio = row.ratio or 0.0
        length = _BARS * ratio / longest
        title = escape(f"{row.operation}, {row.subject}: {ratio:.2f}")
        parts.append(
            f'<rect x="{_NAMES}" y="{y}" width="{length:.1f}" height="{_LINE - 2}" '
            f'fill="{colours[row.subject]}"><title>{title}</title></rect>'
        )
        parts.append(_text(round(_NAMES + length + 4), y + 10, f"{ratio:.2f}"))
        y += _LINE
    at_one = _NAMES + _BARS / longest
    heading = f"CPU of a call, compared with {BARE} (1.00); {about['engine']}, {about['made']}"
    legend = [
        f'<rect x="{_NAMES + 130 * place}" y="{_MARGIN + 10}" width="10" height="10" '
        f'fill="{colours[name]}"/>' + _text(_NAMES + 130 * place + 14, _MARGIN + 19, name)
        for place, name in enumerate(subjects)
    ]
    width, height = _NAMES + max(_BARS, 130 * len(subjects)) + 60, y + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="11" '
            f'role="img" aria-label="{escape(heading, {chr(34): "&quot;"})}">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            _text(_NAMES, _MARGIN, heading, 'font-size="13"'),
            *legend,
            *parts,
            f'<line x1="{at_one:.1f}" x2="{at_one:.1f}" y1="{3 * _MARGIN}" y2="{y}" '
            'stroke="#111" stroke-dasharray="3 3"/>',
            "</svg>\n",
        ]
    )


def _text(x: int, y: int, text: str, attributes: str = "") -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{escape(text)}</text>'


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _time(row: Row) -> str:
    if row.cpu >= 10_000:
        return f"{row.cpu / 1000:,.0f} ms"
    return f"{_number(row.cpu)} µs"


def _cell(row: Row) -> str:
    return _time(row) if row.ratio is None else f"{row.ratio:.2f}"
