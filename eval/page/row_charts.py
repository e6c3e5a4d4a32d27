"""Charts of a row a thing, its words above it, so that words and drawing each have a phone's full width.

    forest("kinds", [Row("top", .4, .3, .5)], "MAP@20")             ->  "<svg ...>", a dot with its interval a row
    bars("time", ["train"], {"fold 0": [60]}, ["60 s"], "seconds")  ->  "<svg ...>", a stacked bar a row

Parts of a bar differ in colour and hatch. Style, colours and bytes as in charts.py.
"""

from typing import NamedTuple, Sequence

import numpy as np

from eval.page.charts import INK, SERIES, STYLE, clip, empty, inline, legend

HATCHES = ["", "//", "\\\\", "xx", "--", "||"]
LETTERS = 46  # of a row's label and note together


class Row(NamedTuple):
    """A value with its interval (NaN: none) under a label; `note` stands at the right, `detail` below the label."""
    label: str
    value: float
    low: float = np.nan
    high: float = np.nan
    note: str = ""
    detail: str = ""


def words(rows: Sequence[Row]) -> list[str]:
    """What `forest` shows, a line a row."""
    return [f"{row.label}{f' ({row.detail})' if row.detail else ''}: {row.note}" for row in rows]


def forest(name: str, rows: Sequence[Row], x: str, reference: float = np.nan) -> str:
    """A dot and its interval a row, the words above it, so that they have a phone's full width; a stroke at `reference`."""
    import matplotlib

    tall = 1.0 + 0.5 * any(row.detail for row in rows)
    with matplotlib.rc_context(STYLE):
        figure, axes = empty(0.6 + 0.4 * tall * len(rows))
        for place, row in enumerate(rows):
            axes.plot([row.low, row.high], [place, place], color=SERIES[0], linewidth=2, solid_capstyle="butt")
            axes.plot(row.value, place, color=SERIES[0], marker="o" if np.isfinite(row.low) else "D", markersize=5.5,
                      markerfacecolor=SERIES[0] if np.isfinite(row.low) else "none")
            beside = dict(transform=axes.get_yaxis_transform(), fontsize=9, verticalalignment="bottom")
            lower = place - 0.2 / tall
            upper = lower - 0.33 * bool(row.detail)
            axes.text(1, upper, row.note, horizontalalignment="right", **beside)
            axes.text(0, upper, clip(row.label, LETTERS - len(row.note)), **beside)
            axes.text(0, lower, clip(row.detail, 58), alpha=0.8, in_layout=False, **beside | {"fontsize": 8.5})
            axes.plot([reference] * 2, [place - 0.12, place + 0.12], color=INK, linewidth=1.2, linestyle=":")
        axes.set(xlabel=x, ylim=(len(rows) - 0.6, -0.95), yticks=[])
        axes.locator_params(axis="x", nbins=6)
        axes.spines.left.set_visible(False)
        return inline(figure, name)


def bars(name: str, rows: Sequence[str], parts: dict[str, Sequence[float]], notes: Sequence[str], x: str) -> str:
    """A bar a row, stacked from `parts` (one value a row); the row's name and its note stand above the bar."""
    import matplotlib

    places, start = np.arange(len(rows)), np.zeros(len(rows))
    with matplotlib.rc_context(STYLE):
        figure, axes = empty(0.6 + 0.42 * len(rows) + (len(parts) > 1) * 0.19 * ((len(parts) + 1) // 2))
        for number, (part, width) in enumerate(parts.items()):
            axes.barh(places + 0.16, width, 0.42, left=start, facecolor=SERIES[number % 6], alpha=0.85, label=part,
                      hatch=HATCHES[(number + number // 6) % 6], edgecolor=INK, linewidth=0.4)
            start = start + width
        for place, (row, note) in enumerate(zip(rows, notes, strict=True)):
            beside = dict(transform=axes.get_yaxis_transform(), fontsize=9, verticalalignment="bottom")
            axes.text(0, place - 0.1, clip(row, LETTERS - len(note)), **beside)
            axes.text(1, place - 0.1, note, horizontalalignment="right", **beside)
        axes.set(xlabel=x, ylim=(len(rows) - 0.4, -0.6), yticks=[], xlim=(0, start.max() or 1))
        axes.locator_params(axis="x", nbins=6)
        axes.spines.left.set_visible(False)
        if len(parts) > 1:
            legend(figure, *axes.get_legend_handles_labels())
        return inline(figure, name)
