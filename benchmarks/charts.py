"""Plots of the benchmarks. Without matplotlib (the `bench` extra) there is none, and a note says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "no plot: matplotlib is not installed (pip install 'streamgate[bench]')"
INK, FAINT, ACCENT = "#222222", "#b8b8b8", "#c8102e"


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration on the curve: `cost` in core-ms a second of video, `regret` in points of quality."""

    name: str
    cost: float
    regret: float
    worst: float
    marked: bool


def draw_regret(points: Sequence[Point], path: Path) -> list[str]:
    """Regret against cost, the default marked; notes on what could not be done."""
    with _figure(path, 11.0, 5.8) as (figure, notes):
        if figure is not None:
            axes = figure.subplots()
            for one in sorted(points, key=lambda point: point.marked):
                colour = ACCENT if one.marked else INK
                axes.scatter(one.cost, one.regret, s=130, color=colour, edgecolors="white", lw=0.8, zorder=3)
            front = _front(points)
            axes.plot([one.cost for one in front], [one.regret for one in front], color=FAINT, lw=1.2, zorder=1)
            axes.axhline(1.0, color=ACCENT, lw=0.8, ls=":", zorder=0)
            axes.annotate("target", (1.0, 1.0), xycoords=("axes fraction", "data"), fontsize=8, color=ACCENT,
                          ha="right", va="bottom")  # fmt: skip
            axes.set_xscale("log")
            axes.margins(x=0.12)
            axes.set_ylim(0, 1.12 * max(1.1, *(one.regret for one in points)))
            ticks = [cost for cost in (20, 50, 100, 200, 500, 1000, 2000, 5000) if _spans(points, cost)]
            axes.set_xticks(ticks, [str(cost) for cost in ticks], minor=False)
            axes.set_xticks([], minor=True)
            _number(axes, points)
            axes.set_xlabel("CPU, core-ms a second of video (decoding included)")
            axes.set_ylabel("mean regret, points of quality")
            axes.set_title("Regret against cost of the cascade's configurations; grey: nothing is better at less")
    return notes


def draw_stages(shares: Mapping[str, Mapping[str, float]], order: Sequence[str], path: Path) -> list[str]:
    """Stacked bars, one a clip: `shares` core-ms a second of video by clip and stage."""
    with _figure(path, 10.0, max(4.6, 1.4 + 0.5 * len(shares))) as (figure, notes):
        if figure is not None:
            import matplotlib

            colours = matplotlib.colormaps["tab20"].colors
            axes = figure.subplots()
            names = list(shares)
            left = [0.0] * len(names)
            for index, stage in enumerate(order):
                widths = [shares[name].get(stage, 0.0) for name in names]
                axes.barh(names, widths, left=left, color=colours[index % 20], label=stage, height=0.7)
                left = [before + width for before, width in zip(left, widths, strict=True)]
            axes.invert_yaxis()
            axes.set_xlabel("core-ms a second of video")
            axes.set_title("Where the time of a run goes")
            figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return notes


def draw_lines(
    panels: Sequence[tuple[str, str, str, Mapping[str, Sequence[tuple[float, float]]]]],
    path: Path,
    *,
    logarithmic: bool = False,
) -> list[str]:
    """Small panels side by side, each (title, x label, y label, line name -> (x, y) pairs)."""
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    with _figure(path, 4.8 * columns, 3.4 * rows) as (figure, notes):
        if figure is not None:
            grid = figure.subplots(rows, columns, squeeze=False)
            for index, axes in enumerate(grid.flat):
                if index >= len(panels):
                    axes.axis("off")
                    continue
                title, across, up, lines = panels[index]
                for name, pairs in lines.items():
                    axes.plot([x for x, _ in pairs], [y for _, y in pairs], marker="o", ms=4, lw=1.3, label=name)
                axes.set_title(title, fontsize=10)
                axes.set_xlabel(across)
                axes.set_ylabel(up)
                if logarithmic:
                    axes.set_xscale("log")
                    axes.set_yscale("log")
                else:
                    axes.set_ylim(bottom=0)
                if len(lines) > 1:
                    axes.legend(fontsize=8, frameon=False)
    return notes


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """A figure that is written to `path` at the end, or None with a note."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        yield None, [MISSING]
        return
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure, []
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eeeeee", lw=0.7, zorder=0)
        axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})


def _front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both, by cost."""
    front: list[Point] = []
    for one in sorted(points, key=lambda point: (point.cost, point.regret)):
        if not front or one.regret < front[-1].regret:
            front.append(one)
    return front


def _spans(points: Sequence[Point], cost: float) -> bool:
    costs = [one.cost for one in points]
    return 0.7 * min(costs) <= cost <= 1.4 * max(costs)


def _number(axes: Any, points: Sequence[Point]) -> None:
    """Points by number, and beside the axes what the numbers mean: names would lie upon each other."""
    for number, one in enumerate(points, 1):
        colour = ACCENT if one.marked else INK
        style = {"color": "white", "ha": "center", "va": "center", "fontsize": 7, "fontweight": "bold"}
        axes.annotate(str(number), (one.cost, one.regret), zorder=4, **style)
        axes.text(
            1.02, 1.0 - 0.045 * (number - 1), f"{number}  {one.name}", transform=axes.transAxes, fontsize=8, va="top",
            color=colour, fontweight="bold" if one.marked else "normal",
        )  # fmt: skip
