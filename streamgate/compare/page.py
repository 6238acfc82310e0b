"""A comparison as one self-contained HTML page: the table, and a scatter plot for each measure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from streamgate.compare.results import EVERYTHING, FIGURES, AgreementRow, HumanScores, estimate_text
from streamgate.errors import escaped
from streamgate.frames import Array

MAX_DOTS = 2_000
_WIDTH, _HEIGHT, _EDGE = 360, 240, 34
_COLOURS = ("#2f6f9f", "#c2571a", "#4a8f3c", "#8a4fa0", "#b03a48", "#6b6b6b", "#b8860b", "#2a8f8f")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 24px; color: #1c1f23; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; } .note { color: #5b6470; }
.wide { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: 5px 16px 5px 0; text-align: right; }
th { border-bottom: 1px solid #c8ccd2; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td { border-bottom: 1px solid #eceef1; font-variant-numeric: tabular-nums; white-space: nowrap; }
.plots { display: flex; flex-wrap: wrap; gap: 18px; } figure { margin: 0; } svg { max-width: 100%; }
figcaption { font-weight: 600; } text { font-size: 11px; fill: #5b6470; }
@media (prefers-color-scheme: dark) {
  body { background: #15181c; color: #e6e8eb; } .note, text { color: #9aa3ad; fill: #9aa3ad; }
  td { border-color: #262b31; } th { border-color: #454c55; }
}
"""


def page_text(
    title: str,
    note: str,
    lines: Sequence[AgreementRow],
    human: HumanScores,
    values: Mapping[str, Array],
    groups: Array | None,
) -> str:
    """The HTML page; all text from outside is escaped."""
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="note">{_text(note)}</p>']
    for group in dict.fromkeys(line.group for line in lines):
        parts.append(f"<h2>{_text(group)}</h2>" if group != EVERYTHING else "")
        parts.append(_table([line for line in lines if line.group == group]))
    parts.append("<h2>Row by row</h2>" + _legend(groups))
    plots = [_plot(name, found, human, groups) for name, found in values.items()]
    parts.append(f'<div class="plots">{"".join(plots)}</div>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _text(text: str) -> str:
    return html.escape(escaped(text))


def _table(lines: Sequence[AgreementRow]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("measure", "rows", "SRCC", "KRCC", "PLCC", "AUC good / bad"))
    rows = []
    for line in lines:
        cells = [_text(line.measure), str(line.count)]
        if not line.figures:
            rows.append(f"<tr><td>{cells[0]}</td><td>{cells[1]}</td><td colspan=4>{_text(line.why)}</td></tr>")
            continue
        cells += [estimate_text(line.figures.get(name)) for name in FIGURES]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _legend(groups: Array | None) -> str:
    if groups is None:
        return ""
    names = np.unique(groups)
    dots = "  ".join(
        f'<span style="color:{_COLOURS[index % len(_COLOURS)]}">●</span> {_text(str(name))}'
        for index, name in enumerate(names[:24])
    )
    return f'<p class="note">{dots}{" …" if len(names) > 24 else ""}</p>'


def _plot(name: str, found: Array, human: HumanScores, groups: Array | None) -> str:
    rows = np.nonzero(np.isfinite(found) & np.isfinite(human.values))[0]
    if len(rows) == 0:
        return ""
    rows = rows[np.linspace(0, len(rows) - 1, min(MAX_DOTS, len(rows))).astype(int)]
    x, y = found[rows], human.values[rows]
    levels = np.unique(human.values[np.isfinite(human.values)])
    if len(levels) <= 10:
        # With few levels, jitter the dots so that they do not hide one another.
        y = y + np.random.default_rng(0).uniform(-0.3, 0.3, len(y)) * np.diff(levels).min()
    colours = _colours(groups, rows)
    across, down = _scale(x, _EDGE, _WIDTH - 8), _scale(y, _HEIGHT - _EDGE, 8)
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" fill="{colour}"/>'
        for a, b, colour in zip(across, down, colours, strict=True)
    )
    low, high = f"{x.min():.4g}", f"{x.max():.4g}"
    return (
        f'<figure><figcaption>{_text(name)}</figcaption><svg width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(name)} against {_text(human.column)}">'
        f'<path d="M{_EDGE} 4V{_HEIGHT - _EDGE + 6}H{_WIDTH - 4}" fill="none" stroke="#9aa3ad"/>'
        f'<g fill-opacity=".45">{dots}</g>'
        f'<text x="{_EDGE}" y="{_HEIGHT - 12}">{low}</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 12}" text-anchor="end">{high}</text>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">better →</text>'
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">{_text(human.column)} →'
        "</text></svg></figure>"
    )


def _colours(groups: Array | None, rows: Array) -> list[str]:
    if groups is None:
        return [_COLOURS[0]] * len(rows)
    _, index = np.unique(groups, return_inverse=True)
    return [_COLOURS[index[row] % len(_COLOURS)] for row in rows]


def _scale(values: Array, start: float, end: float) -> Array:
    low, high = float(values.min()), float(values.max())
    return start + (values - low) / (high - low if high > low else 1.0) * (end - start)
