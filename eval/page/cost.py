"""What a run cost: seconds of its steps, of the phases of its predictions and of its models, and what each model adds for them.

Reads RUN/summary.csv, fold*/timings.json and ensembles.csv. Writes nothing: `of_steps`, `of_predictions` and `of_ensembles`
give figures, and the last a table, too.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from eval import ensembles
from eval.page import charts, row_charts
from eval.labels import numbers
from eval.page.charts import Figure, Line
from eval.files import read_table
from eval.page.intervals import in_words
from eval.page.records import read_timings
from eval.page.row_charts import Row

PHASES = {"load_seconds": "load models", "decode_seconds": "read photographs", "forward_seconds": "run models",
          "embed_seconds": "embed, the rest", "rank_seconds": "rank", "write_seconds": "write"}
INSIDE = ["load_seconds", "decode_seconds", "forward_seconds"]  # of embed_seconds
MEASURED = ["n_queries", "strict", "low", "high", "gain", "gain_low", "gain_high", "seconds"]
Table = tuple[list[str], list[list[str]]]


def of_steps(run: Path) -> Figure:
    path, title = run / "summary.csv", "Time of each step"
    if not path.is_file():
        return charts.nothing("steps", title, f"No times of the steps: {path.name} is not there; ./run_all.sh writes it.")
    table = numbers(read_table(path, ["step", "seconds"]), ["seconds"], path)
    if table.empty:
        return charts.nothing("steps", title, f"{path.name} has no rows; ./run_all.sh writes one a step.")
    parts = table.step.str.extract(r"^(?P<phase>.*?)\s*(?P<fold>fold \d+)?$").fillna("whole run").assign(seconds=table.seconds.fillna(0))
    wide = parts.pivot_table("seconds", "phase", "fold", "sum", 0.0, sort=False)
    return stacked("steps", title, "Each step, its folds beside one another.", wide)


def stacked(name: str, title: str, caption: str, wide: pd.DataFrame, notes: pd.Series | None = None) -> Figure:
    """Rows of seconds, a column a part; `notes` stand behind the time of a row."""
    total = wide.sum(axis=1)
    shares = [f"{spoken(seconds)}, {100 * seconds / (total.sum() or 1):.0f} %" for seconds in total] if notes is None else \
        [f"{spoken(seconds)}{notes[row]}" for row, seconds in total.items()]
    unit, factor = ("minutes", 60) if total.max() >= 180 else ("seconds", 1)
    chart = row_charts.bars(name, list(wide.index), {part: wide[part].to_numpy() / factor for part in wide}, shares, unit)
    words = [f"{row}: {note}" + (f" ({', '.join(f'{part} {spoken(seconds)}' for part, seconds in wide.loc[row].items() if seconds)})"
                                 if wide.shape[1] > 1 else "") for row, note in zip(wide.index, shares)]
    return Figure(name, title, f"{caption} {spoken(total.sum())} in all.", chart, words)


def spoken(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def of_predictions(run: Path, folds: list[int]) -> list[Figure]:
    """The phases of each fold's prediction, and where it is told the forward passes of each model."""
    timings = {fold: read_timings(run / f"fold{fold}" / "timings.json") for fold in folds if (run / f"fold{fold}" / "timings.json").is_file()}
    if not timings:
        return [charts.nothing("prediction", "Time of a prediction", "No times of predictions: fold*/timings.json is not there; "
                               "solution.predict writes it where --timings names it.")]
    wide = pd.DataFrame({f"fold {fold}": phases(timing) for fold, timing in timings.items()}).T
    speed = {f"fold {fold}": f", {timing['images'] / seconds:.1f} photographs/s" if "images" in timing and seconds else ""
             for (fold, timing), seconds in zip(timings.items(), wide.sum(axis=1))}
    if not any(key in timing for timing in timings.values() for key in INSIDE):
        wide = wide.rename(columns={PHASES["embed_seconds"]: "embed"})
    figures = [stacked("prediction", "Time of a prediction", "From photographs to the file.", wide.loc[:, wide.any()], pd.Series(speed))]
    models = {name: seconds for timing in timings.values() for name, seconds in timing.get("models", {}).items()}
    if models:
        total = pd.DataFrame(0.0, list(models), ["photographs", "mirror images"])
        for timing in timings.values():
            for name, seconds in timing.get("models", {}).items():
                total.loc[name] += [seconds.get("plain_seconds", 0), seconds.get("mirror_seconds", 0)]
        figures.append(stacked("models", "Time of each model", "Forward passes alone, over all folds.", total))
    return figures


def phases(timing: dict) -> dict[str, float]:
    seconds = {words: float(timing.get(key, 0)) for key, words in PHASES.items()}
    inside = sum(timing.get(key, 0) for key in INSIDE)
    return seconds | {PHASES["embed_seconds"]: max(0.0, timing.get("embed_seconds", inside) - inside)}


def of_ensembles(run: Path) -> tuple[list[Figure], Table | None]:
    """Of the most folds together that the table has; the table that comes with the figures has all of its rows."""
    path = run / "ensembles.csv"
    if not path.is_file():
        return [charts.nothing("ensembles", "Score against seconds", "What each model adds is not measured: ensembles.csv is not there; "
                               f"python -m eval.ensembles {charts.clip(run.name, 60)} writes it.")], None
    table = ensembles.read(path, MEASURED)
    if table.n_queries.isna().all():
        return [charts.nothing("ensembles", "Score against seconds", "ensembles.csv has no scores.")], None
    table = table[table.folds == table.folds[table.n_queries.idxmax()]].reset_index(drop=True)
    shown = [["+".join(row.models), role(row, table), row.mirror or "–", dash(row.strict), span(row.low, row.high), dash(row.seconds, 1),
              dash(row.gain, sign="+"), span(row.gain_low, row.gain_high, "+")] for row in table.itertuples()]
    header = ["models", "which are", "mirror images", "MAP@20, strict", "95 % interval", "seconds per 1,000 photographs", "gain", "95 % interval"]
    return [frontier(table), gains(table)], (header, shown)


def frontier(table: pd.DataFrame) -> Figure:
    """Score over seconds: every model alone, and the recipe's first 1, 2, .. models joined by a line."""
    title, timed = "Score against seconds", table[table.seconds.notna() & table.strict.notna()]
    if timed.empty:
        return charts.nothing("frontier", title, "The seconds of the models are not known: fold*/timings.json tells them after "
                              "solution.predict --timings.")
    timed = timed.assign(count=timed.models.str.len()).sort_values("count", kind="stable")
    leads = (timed.kind == "prefix") | (timed.kind == "single") & (timed.models.str[0] == table.models[0][0])
    series = {}
    for (mirror, led), part in timed[timed.kind.isin(["single", "prefix"])].groupby([timed.mirror, leads], sort=True):
        series[("first models" if led else "one model") + {"no": ", photographs alone", "yes": ", with mirror images"}.get(mirror, "")] = part
    words = [f"{' + '.join(row.models)} ({name}): {in_words(row.strict, row.low, row.high)}, {row.seconds:.1f} s"
             for name, part in series.items() for row in part.itertuples()]
    drawn = {name: Line(part.seconds, part.strict, part.low, part.high) for name, part in series.items()}
    joined = [name for name in drawn if name.startswith("first")]
    chart = charts.paths("frontier", drawn, joined, "seconds for 1,000 photographs", "MAP@20, strict")
    caption = ("A line joins the recipe's first model (1), its first two (2), and so on. Upright strokes are 95 % intervals; they may overlap where a "
               "difference is certain, which the gains tell.")
    return Figure("frontier", title, caption, chart, words)


def gains(table: pd.DataFrame) -> Figure:
    title, rows = "What each model adds", [added(row, table) for row in table[table.gain.notna()].itertuples()]
    rows = [row for row in rows if row]
    if not rows:
        return charts.nothing("gains", title, "There is one model and no mirror images, so nothing is added to anything.")
    chart = row_charts.forest("gains", rows, "gain in MAP@20", reference=0)
    caption = "Paired differences with 95 % intervals over redrawn individuals; left of the dotted strokes it does harm."
    return Figure("gains", title, caption, chart, row_charts.words(rows))


def added(row: tuple, table: pd.DataFrame) -> Row | None:
    """What a row's gain is that of; None where mirror images are left out beside a model."""
    everything = max(table.models, key=len)
    said = dict(value=row.gain, low=row.gain_low, high=row.gain_high, note=in_words(row.gain, row.gain_low, row.gain_high, "+"))
    if row.kind == "local" or row.kind == "without" and len(row.models) == len(everything):
        return Row("local evidence" if row.kind == "local" else "mirror images", detail="added to all models", **said)
    if row.mirror == "no":
        return None
    if row.kind == "prefix":
        before = len(row.models) - 1
        return Row(row.models[-1], detail=f"added to the recipe's first {f'{before} models' if before > 1 else 'model'}", **said)
    return Row(next(model for model in everything if model not in row.models), detail="added to all others", **said)


def role(row: tuple, table: pd.DataFrame) -> str:
    """What the models of a row are, and so what its gain is that of."""
    everything = max(table.models, key=len)
    if row.kind == "prefix":
        return f"first {len(row.models)}"
    if row.kind == "without":
        return next((f"without {model}" for model in everything if model not in row.models), "without mirror images")
    return "with local evidence" if row.kind == "local" else "alone"


def dash(value: float, digits: int = 3, sign: str = "") -> str:
    return "–" if np.isnan(value) else f"{value:{sign}.{digits}f}"


def span(low: float, high: float, sign: str = "") -> str:
    return "–" if np.isnan(low) else f"{dash(low, sign=sign)} to {dash(high, sign=sign)}"
