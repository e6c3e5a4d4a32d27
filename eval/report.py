"""One page about a run: what it scored and where, how it learned, what it cost, what it was made from, and a few answers.

Reads what is there of RUN: score.json, fold*/{score.json,per_query.csv,submission.csv,timings.json,weights/}, summary.csv
and folds/. Writes one HTML file that needs no other file and no network; what is absent is said in its place.

    python -m eval.report runs/demo --output runs/demo/report.html

Expect a second or two and under 2 MB. Same inputs, same bytes.
"""

import argparse
from pathlib import Path
from typing import Sequence

import pandas as pd

from eval import charts, pictures
from eval.files import InputError, read_json, read_table, run, whole
from eval.pictures import numbers
from eval.score import MEASURES

TITLES = {"strict": "MAP@20, strict", "official": "MAP@20, official", "map5_images": "MAP@5, photographs",
          "map5_individuals": "MAP@5, individuals", "top1": "Top-1"}
MEANINGS = {
    "strict": "Mean average precision of the first 20 photographs found for each query: 1 where every photograph of the same "
              "individual comes first. A query without an answer counts 0, and a file that breaks a rule gets no number.",
    "official": "The organisers' own formula. It leaves out queries without an answer; where none is missing and no rule is "
                "broken it equals the strict number.",
    "map5_images": "Average precision of the first five photographs alone: a hit counts for more the earlier it comes.",
    "map5_individuals": "One over the place of the right individual among the first five different ones; 0 where it is not among them.",
    "top1": "The share of queries whose first photograph shows the right individual.",
}
NAME_TITLES = {"strict": "MAP@5, strict", "official": "MAP@5, Kaggle", "map5_individuals": "MAP@5, individuals", "top1": "Top-1"}
NAME_MEANINGS = {
    "strict": "One over the place of the right name among the five given for each photograph, 0 where it is not among them. A "
              "photograph without an answer counts 0, and a file that breaks a rule gets no number.",
    "official": "Kaggle's own formula; where no rule is broken it equals the strict number.",
    "map5_individuals": "The same for each photograph of the truth, whether or not the file keeps the rules.",
    "top1": "The share of photographs whose first name is right.",
}
OPEN_SET = {
    "auc": "chance that an unknown individual is given a higher probability of being new than a known one (AUC; 0.5 is a guess)",
    "n_known": "photographs of known individuals",
    "accuracy_known": "share of these that are taken for known",
    "first_right_known": "share of these whose first name is right",
    "n_unknown": "photographs of unknown individuals",
    "accuracy_unknown": "share of these that are taken for new",
    "first_right_unknown": "share of these whose first answer is “new”",
    "brier": "mean squared error of the probability (Brier score; 0 is best)",
    "calibration_error": "mean gap between the probability and how often it comes true (calibration error; 0 is best)",
}
PROTOCOLS = {
    "whale": "whole individuals are held out: no individual that is asked was seen in training, and no query meets a photograph of its own encounter",
    "encounter": "whole encounters are held out, and the database is the training photographs",
    "stratified": "each individual's photographs are dealt out; near-duplicates of one encounter fall on both sides, so the scores flatter",
    "time": "the latest photographs are asked, and the database is the earlier ones",
    "suite": "the competition's kinds of scenario over all photographs, with nothing to train on",
    "identify": "the humpback competition's split: one photograph of each individual with several, and unknown ones",
}
COUNTS = {"train_images": "training photographs", "train_whales": "training individuals", "test_images": "test photographs",
          "test_whales": "test individuals", "queries": "queries", "queries_not_made_without_a_true_match": "not asked: no true match"}


def report(run: Path, output: Path) -> Path:
    """Writes the page about a run; InputError where RUN is no run or one of its files cannot be read."""
    page = render(contents(Path(run)))
    with whole(output) as beside:
        beside.write_bytes(page.encode("utf-8", "replace"))  # JSON may hold half a surrogate pair
    return Path(output)


def contents(run: Path) -> dict:
    """What the page shows, by name; None or empty where RUN does not have it."""
    folds = sorted(int(path.name[4:]) for path in run.glob("fold*") if path.name[4:].isdecimal())
    score, manifest = read_score(run / "score.json"), read_object(run / "folds" / "manifest.json", ["protocol", "seed", "folds"])
    if not folds and score is None:
        raise InputError(f"{run}: no run here (score.json, fold0/); make one with ./run_all.sh")
    fold_scores = present(folds, lambda fold: read_score(run / f"fold{fold}" / "score.json"))
    of_names = any(each["map5_images"] is None and each["map5_individuals"] is not None for each in [score, *fold_scores.values()] if each)
    scenarios = scenario_rows(score, manifest) if score else []
    return {
        "name": run.resolve().name, "score": score, "manifest": manifest, "folds": folds, "of_names": of_names,
        "titles": NAME_TITLES if of_names else TITLES, "meanings": NAME_MEANINGS if of_names else MEANINGS,
        "fold_scores": fold_scores, "open_set": open_set({fold: each["open_set"] for fold, each in fold_scores.items() if "open_set" in each}),
        "scenarios": scenarios, "scenario_drawing": draw_scenarios(scenarios) if scenarios else None,
        "learning": {fold: learning(run, fold) for fold in folds}, "steps": steps(run / "summary.csv"),
        "timings": present(folds, lambda fold: read_object(run / f"fold{fold}" / "timings.json")),
        "rankings": [] if of_names else rankings(run, folds),
        "recipes": recipes(run, folds), "protocols": PROTOCOLS, "counts": COUNTS,
        "provenance": present(folds, lambda fold: read_object(run / f"fold{fold}" / "weights" / "provenance.json")),
    }


def present(folds: list[int], read) -> dict[int, dict]:
    """What `read` gives for each fold, without those that have nothing."""
    return {fold: value for fold in folds if (value := read(fold))}


def read_object(path: Path, keys: Sequence[str] = ()) -> dict | None:
    """A JSON object with these keys; None where there is no file."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: a {type(value).__name__}, not a JSON object; write the file again")
    missing = [key for key in keys if key not in value]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing; write the file again")
    return value


def read_score(path: Path) -> dict | None:
    """A score.json whose numbers are numbers or null; None where there is no file."""
    score = read_object(path, [*MEASURES, "n_queries", "ci95", "strict_errors", "scenarios"])
    if score is None:
        return None
    values = [(key, part.get(key, "")) for part in [score, *score["scenarios"].values()] for key in [*MEASURES, "n_queries"]]
    if "open_set" in score:
        values += [(f"open_set: {key}", score["open_set"].get(key, "")) for key in OPEN_SET]
    for key, value in values + [("ci95", bound) for bound in score["ci95"] or []]:
        if not isinstance(value, (int, float, type(None))):
            raise InputError(f"{path}: {key} is {value!r}, not a number; write the file again")
    return score


def open_set(figures: dict[int, dict]) -> dict | None:
    """The folds that have these figures, and a row in words for each that one of them has, with a text a fold."""
    shown = {words: [(count if key.startswith("n_") else number)(each[key]) for each in figures.values()] for key, words in OPEN_SET.items()}
    sure = [each.get("wrong_above") or {} for each in figures.values()]
    for least in sorted({least for each in sure for least in each}):
        shown[f"wrong ones among the names that are at least {100 * float(least):.0f} % sure"] = [
            "{1:,} of {0:,}".format(*each[least]) if least in each else "–" for each in sure]
    rows = {words: texts for words, texts in shown.items() if set(texts) != {"–"}}
    return {"folds": list(figures), "rows": rows} if figures else None


def scenario_rows(score: dict, manifest: dict | None) -> list[dict]:
    """The scores of each scenario of each fold, with what it asks as the manifest has it; a whole fold is none."""
    rows = []
    for name, means in score["scenarios"].items():
        if name.rstrip("/") in score.get("folds", {}):
            continue
        fold, _, scenario = name.rpartition("/")
        asked = (manifest or {"folds": {}})["folds"].get(fold.removeprefix("fold"), {}).get("scenarios", {}).get(scenario, {})
        label = f"fold {fold.removeprefix('fold')} {scenario}".strip() if fold else scenario
        rows.append(means | {"label": label, "kind": asked.get("kind", ""), "database": asked.get("database")})
    return rows


def draw_scenarios(rows: list[dict]) -> dict:
    """The chart and the same in words, a line a scenario."""
    values = {"strict": "strict", "top1": "top-1"}
    dots = {title: [float("nan") if row[name] is None else row[name] for row in rows] for name, title in values.items()}
    words = [f"{row['label']}: " + ", ".join(f"{title} {number(row[name])}" for name, title in values.items()) for row in rows]
    return {"chart": charts.dots("scenarios", [row["label"] for row in rows], dots), "words": words}


def learning(run: Path, fold: int) -> dict[str, dict]:
    """Title -> chart and a line a model in words, of what the training logs of one fold hold."""
    logs = {path.name.removesuffix(".log.csv"): read_log(path) for path in sorted((run / f"fold{fold}" / "weights").glob("*.log.csv"))}
    drawn = {}
    for measure, title in {"loss": "Loss", "map20": "MAP@20 on the inner fold"}.items():
        having = {name: log for name, log in logs.items() if measure in log and log[measure].notna().any()}
        if having:
            words = [in_words(name, log[log[measure].notna()], measure) for name, log in having.items()]
            drawn[title] = {"chart": charts.curves(f"{measure}{fold}", having, measure), "words": words}
    return drawn


def read_log(path: Path) -> pd.DataFrame:
    log = read_table(path, ["epoch"])
    return numbers(log, [name for name in ("epoch", "loss", "map20") if name in log], path)


def in_words(name: str, log: pd.DataFrame, measure: str) -> str:
    first, last = log.iloc[0], log.iloc[-1]
    return f"{name}: {first[measure]:.3f} in epoch {first.epoch:.0f}, {last[measure]:.3f} in epoch {last.epoch:.0f}"


def steps(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    table = read_table(path, ["step", "seconds", "peak_mb"])
    return numbers(table, ["seconds", "peak_mb"], path).to_dict("records")


def rankings(run: Path, folds: list[int]) -> list[pictures.Ranking]:
    needed = ["fold{}/per_query.csv", "fold{}/submission.csv", *(f"folds/{{}}/{name}" for name in ("truth.csv", "labels.csv", "test/metadata.csv"))]
    complete = [fold for fold in folds if all((run / name.format(fold)).is_file() for name in needed)]
    return pictures.rankings(run, complete) if complete else []


def recipes(run: Path, folds: list[int]) -> dict[str, list[int]]:
    """The text of each recipe.yaml and the folds that were trained with it."""
    texts: dict[str, list[int]] = {}
    for fold in folds:
        path = run / f"fold{fold}" / "weights" / "recipe.yaml"
        if path.is_file():
            texts.setdefault(path.read_text(errors="replace"), []).append(fold)
    return texts


def render(page: dict) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "count": count, "duration": duration, "told": told}
    return environment.get_template("report.html.jinja").render(page)


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.0f}"


def duration(seconds: float) -> str:
    if not seconds >= 60:
        return "–" if pd.isna(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def told(value: object) -> str:
    """A value of a JSON file as text; an object as `key value, key value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {told(part)}" for key, part in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one self-contained page about a run.",
                                     epilog="example: python -m eval.report runs/demo --output runs/demo/report.html")
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run: folds/, fold0/, score.json, summary.csv")
    parser.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    arguments = parser.parse_args()
    print(report(arguments.run, arguments.output))


if __name__ == "__main__":
    run(main)
