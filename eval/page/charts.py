"""What the report draws: charts as inline SVG that take their colours from the page, in light and in dark.

    curves("loss0", {"lite0": log}, "loss")         ->  "<svg ...>", one line a model
    lines, reliability, waterfall, bubbles, paths   ->  likewise; charts of rows with words are in row_charts.py

Lines differ in colour, dash and marker. The page defines --series-1 .. --series-6; all
else is its text colour. Each chart of a page needs a name of its own, which begins the ids in it. Same numbers, same bytes.
"""

import io
import re
import warnings
from typing import NamedTuple, Sequence

import numpy as np
import pandas as pd

WIDTH = 3.7  # inches; small, so that the letters stay legible where a phone shows it at its full width
INK, SERIES = "#00000f", [f"#00000{number}" for number in range(1, 7)]  # stand-ins for the page's colours
DASHES = ["-", "--", ":", "-."]
MARKERS = "osD^vP*"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 10, "text.parse_math": False, "hatch.linewidth": 0.7,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"], INK),
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.18, "grid.linewidth": 0.6,
    "axes.linewidth": 0.6, "legend.frameon": False, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9,
}


class Figure(NamedTuple):
    name: str  # letters, digits and dashes; begins the ids of its chart
    title: str
    caption: str
    chart: str  # "<svg ...>", "" where there is nothing to draw
    words: list[str]  # what the chart shows, a line a point or a line
    absent: str = ""  # why there is nothing, and what makes it


class Line(NamedTuple):
    """Arrays (k,); low and high are the ends of a band, None for none."""
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def nothing(name: str, title: str, absent: str) -> Figure:
    return Figure(name, title, "", "", [], absent)


def curves(name: str, logs: dict[str, pd.DataFrame], measure: str) -> str:
    """A line a model: `measure` over `epoch`, both columns of numbers; epochs without a number are left out."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = empty(2.5 + 0.19 * ((len(logs) + 1) // 2))
        for number, log in enumerate(logs.values()):
            log = log[log[measure].notna()]
            axes.plot(log.epoch, log[measure], color=SERIES[number % 6], linestyle=DASHES[number % 4],
                      marker=MARKERS[number % 7], markersize=3, linewidth=1.6)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend(figure, axes.lines, [clip(model, 24) for model in logs])
        return inline(figure, name)


def lines(name: str, series: dict[str, Line], x: str, y: str, diagonal: bool = False) -> str:
    """A line with its band a series, values from 0 to 1; `x`, `y`: the axes' words; `diagonal`: what chance would draw."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = empty(2.9 + 0.19 * ((len(series) + 1) // 2))
        for number, line in enumerate(series.values()):
            mark = dict(marker=MARKERS[number], markersize=3.5) if len(line.x) <= 20 else {}
            axes.plot(line.x, line.y, color=SERIES[number], linestyle=DASHES[number % 4], linewidth=1.6, **mark)
            if line.low is not None:
                axes.fill_between(line.x, line.low, line.high, color=SERIES[number], alpha=0.16, linewidth=0)
        legend(figure, axes.lines, list(series))
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.6, linestyle=":")
            axes.set_aspect("equal")
        axes.set(xlabel=x, ylabel=y, ylim=(0, max(1.02 * diagonal, min(1.02, axes.get_ylim()[1]))))
        axes.xaxis.get_major_locator().set_params(integer=not diagonal)
        return inline(figure, name)


def reliability(name: str, came: Line, said: np.ndarray, x: str, y: str, probable: bool) -> str:
    """How often it came true over what was said, a point a bin with its interval, and below how many `said` (n,) so.

    `probable`: what was said is a probability, so that the points belong on the diagonal.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, (axes, below) = empty(3.7, heights=[3, 1])
        if probable:
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.6, linestyle=":")
        axes.vlines(came.x, came.low, came.high, color=SERIES[0], linewidth=2)
        axes.plot(came.x, came.y, color=SERIES[0], marker="o", markersize=5, linestyle="", clip_on=False)
        below.hist(said, bins=20, range=(0, 1) if probable else apart(said), facecolor=SERIES[1], alpha=0.7, edgecolor=INK, linewidth=0.4)
        axes.set(ylabel=y, ylim=(0, 1.02))
        below.set(xlabel=x, ylabel="queries")
        below.sharex(axes)
        axes.tick_params(labelbottom=False)
        return inline(figure, name)


def apart(values: np.ndarray) -> tuple[float, float]:
    """The ends of values (n,), one from each other where nothing but rounding parts them: bins need some width."""
    low, high = values.min(), values.max()
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def waterfall(name: str, values: np.ndarray, y: str) -> str:
    """Sorted values, the gains and the losses filled; x is the share of the values."""
    import matplotlib

    values = np.sort(values)[::-1]
    shown = values[np.linspace(0, len(values) - 1, min(len(values), 400)).round().astype(int)]
    x = np.linspace(0, 100, len(shown) + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = empty(2.6)
        for colour, hatch, part in [(SERIES[2], "", np.maximum(shown, 0)), (SERIES[1], "////", np.minimum(shown, 0))]:
            axes.stairs(part, x, fill=True, facecolor=colour, edgecolor=INK, alpha=0.8, hatch=hatch, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set(xlabel="queries, %", ylabel=y, xlim=(0, 100))
        return inline(figure, name)


def bubbles(name: str, x: np.ndarray, y: np.ndarray, count: np.ndarray, words: tuple[str, str]) -> str:
    """A disc a place, its area the count, on a square from 0 to 1 with its diagonal."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = empty(3.8)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.6, linestyle=":")
        axes.scatter(x, y, s=6 + 250 * count / count.max(), facecolor=SERIES[0], alpha=0.45, edgecolor=INK, linewidth=0.5)
        axes.set(xlabel=words[0], ylabel=words[1], xlim=(-0.06, 1.06), ylim=(-0.06, 1.06))
        axes.set_aspect("equal")
        return inline(figure, name)


def paths(name: str, series: dict[str, Line], joined: Sequence[str], x: str, y: str) -> str:
    """Points with their intervals a series; those of the `joined` ones are joined in their order, and of the last one numbered 1, 2, .."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = empty(3.1 + 0.19 * len(series))
        for number, (title, line) in enumerate(series.items()):
            axes.vlines(line.x, line.low, line.high, color=SERIES[number], linewidth=1.2, alpha=0.6)
            axes.plot(line.x, line.y, color=SERIES[number], marker=MARKERS[number], markersize=5, linewidth=1.2,
                      linestyle=DASHES[number % 4] if title in joined else "")
        for place, point in enumerate(zip(line.x, line.y) if title in joined else [], start=1):
            axes.annotate(str(place), point, (0, 6), textcoords="offset points", fontsize=9, fontweight="bold",
                          horizontalalignment="center", zorder=5)
        axes.set(xlabel=x, ylabel=y)
        axes.set_xlim(left=0)
        legend(figure, axes.lines, list(series))
        return inline(figure, name)


def legend(figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Below the axes, in two columns where the words fit side by side."""
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(labels) > 1 and max(map(len, labels)) <= 22 else 1)


def clip(text: str, width: int) -> str:
    """One line of at most `width` characters, without any that a page cannot hold."""
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return line if len(line) <= width else f"{line[:max(width - 1, 0)]}…"


def empty(height: float, heights: Sequence[float] = (1,)):
    """A transparent figure and its axes, or one axes a height, under one another."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    for axes in panels:
        axes.patch.set_alpha(0)
    return figure, panels[0] if len(panels) == 1 else panels


def inline(figure, name: str) -> str:
    """The SVG element alone, undated, in the page's colours."""
    written = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's own font draws it
        figure.savefig(written, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
    svg = written.getvalue().replace(INK, "currentColor")
    for number, colour in enumerate(SERIES, start=1):
        svg = svg.replace(colour, f"var(--series-{number})")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg"):])
    return re.sub(r'(<\w+ id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
