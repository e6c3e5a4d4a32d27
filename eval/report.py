"""One page about a run: what it scored and where, what it answered to every query, how it learned, what it cost.

Reads what is there of RUN: score.json, fold*/{score.json,per_query.csv,submission.csv,probabilities.csv,ensembles.csv,timings.json,
doubts.csv,explain/,weights/}, summary.csv and folds/; a leaderboard beside RUN; with --against another run of the same folds. Writes one
HTML file that needs no other file and no network; what is absent is said in its place.

    python -m eval.report runs/demo --output runs/demo/report.html

Expect seconds and 1 to 12 MB, most of it photographs. Same inputs, same bytes.
"""

import argparse
from pathlib import Path

import pandas as pd

from eval import leaderboard
from eval.page import answers, charts, doubts, gallery, pictures
from eval.labels import numbers
from eval.page.charts import Figure
from eval.files import InputError, alone, check_room, read_table, run, whole
from eval.page.records import read_manifest, read_object, read_score, same_folds
from eval.page.render import count, number, render

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


def report(run: Path, output: Path, against: Path | None = None, board: Path | None = None) -> Path:
    """Writes the page about a run; InputError where RUN is no run or one of its files cannot be read.

    `against`: a run of the same folds to compare to; `board`: a leaderboard, by default leaderboard.csv beside RUN if it is there.
    """
    check_room(output)
    page = render(contents(Path(run), against and Path(against), board and Path(board)))
    with whole(output) as beside:
        beside.write_bytes(page.encode("utf-8", "replace"))  # JSON may hold half a surrogate pair
    return Path(output)


def contents(run: Path, against: Path | None = None, board: Path | None = None) -> dict:
    """What the page shows, by name; None or empty where RUN does not have it."""
    from eval.page import figures  # draws

    folds = sorted(int(path.name[4:]) for path in run.glob("fold*") if path.name[4:].isdecimal())
    score, manifest = read_score(run / "score.json"), read_manifest(run / "folds" / "manifest.json")
    if not folds and score is None:
        raise InputError(f"{run}: no run here (score.json, fold0/); make one with ./run_all.sh")
    if against:
        same_folds(run, against)
    system = leaderboard.system(run, board or leaderboard.beside(run))
    fold_scores = present(folds, lambda fold: read_score(run / f"fold{fold}" / "score.json"))
    of_names = any(each["map5_images"] is None and each["map5_individuals"] is not None for each in [score, *fold_scores.values()] if each)
    return {
        "name": run.resolve().name, "score": score, "manifest": manifest, "folds": folds, "of_names": of_names,
        "titles": NAME_TITLES if of_names else TITLES, "meanings": NAME_MEANINGS if of_names else MEANINGS,
        "fold_scores": fold_scores, "open_set": open_set({fold: each["open_set"] for fold, each in fold_scores.items() if "open_set" in each}),
        "guess": None if of_names else guess(manifest, folds), "scenarios": scenario_rows(score, manifest) if score else [], "sections": figures.sections(run, folds, against),
        "learning": {fold: learning(run, fold) for fold in folds}, "board_file": board,
        "boards": boards(board or leaderboard.beside(run), bool(board), manifest, system), "system": system,
        "steps": steps(run / "summary.csv"), "doubts": doubts.read(run, folds),
        "recipes": recipes(run, folds), "protocols": PROTOCOLS, "counts": COUNTS,
        "provenance": present(folds, lambda fold: read_object(run / f"fold{fold}" / "weights" / "provenance.json")),
        **queries(run, folds, against, manifest),
    }


def queries(run: Path, folds: list[int], against: Path | None, manifest: dict | None) -> dict:
    """The gallery: all queries for the script, some as rows, the explained pairs, and how many have their photographs."""
    found = answers.read(run, folds, against)
    pairs = gallery.with_whales(pictures.pairs(run, folds), found)
    shown = {"pairs": [pair for pair in pairs.itertuples() if pair.source is not None], "n_pairs": len(pairs), "found": found, "data": None}
    if found is None:
        return shown
    sources = pictures.photographs(found, found.queries.index.isin(gallery.number_of_queries(found.queries, pairs)))
    return shown | {"rows": gallery.rows(found, sources, gallery.ends(found)), "answered": bool((found.tiles.place > 0).any()),
                    "n_pictured": int(pictures.pictured(found, sources).sum()),
                    "data": gallery.block(found, sources, pairs, kinds(manifest))}


def kinds(manifest: dict | None) -> dict[str, str]:
    """What each scenario asks, where all folds agree on it."""
    said: dict[str, set[str]] = {}
    for fold in manifest["folds"].values() if manifest else []:
        for name, asked in fold.get("scenarios", {}).items():
            said.setdefault(name, set()).add(str(asked.get("kind", "")))
    return {name: kinds.pop() for name, kinds in said.items() if len(kinds) == 1}


def boards(path: Path, needed: bool, manifest: dict | None, system: str) -> dict[str, pd.DataFrame]:
    """The leaderboard's boards of this protocol and data, those with this system first; none where there is no file, unless it is `needed`."""
    if not needed and not path.is_file():
        return {}
    asked = (manifest or {}).get("protocol"), str((manifest or {}).get("metadata_sha256"))[:12]
    same = {name: rows for name, rows in leaderboard.ranked(path).items() if (rows.protocol[0], rows.data[0]) == asked}
    # this run's first, and of these the one of all its folds together
    return dict(sorted(same.items(), key=lambda board: (system not in set(board[1].system), -board[1].fold[0].count("+"))))


def guess(manifest: dict | None, folds: list[int]) -> float | None:
    """How often a blind first answer is right, over the queries of these folds; None where the manifest does not tell."""
    told = [manifest["folds"].get(str(fold), {}) for fold in folds] if manifest else []
    told = [(fold["chance_top1"], fold["queries"]) for fold in told if fold.get("chance_top1") is not None and fold.get("queries")]
    return sum(chance * queries for chance, queries in told) / sum(queries for _, queries in told) if told else None


def present(folds: list[int], read) -> dict[int, dict]:
    """What `read` gives for each fold, without those that have nothing."""
    return {fold: value for fold in folds if (value := read(fold))}


def open_set(figures: dict[int, dict]) -> dict | None:
    """The folds that have these figures, and a row in words for each that one of them has, with a text a fold."""
    shown = {words: [(count if key.startswith("n_") else number)(each.get(key)) for each in figures.values()] for key, words in OPEN_SET.items()}
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


def learning(run: Path, fold: int) -> list[Figure]:
    """The curves that the training logs of one fold hold, a line a model."""
    logs = {path.name.removesuffix(".log.csv"): read_log(path) for path in sorted((run / f"fold{fold}" / "weights").glob("*.log.csv"))}
    drawn = []
    for measure, title in {"loss": "Loss", "map20": "MAP@20 on the inner fold"}.items():
        having = {name: log for name, log in logs.items() if measure in log and log[measure].notna().any()}
        if having:
            words = [in_words(name, log[log[measure].notna()], measure) for name, log in having.items()]
            chart = charts.curves(f"{measure}{fold}", having, measure)
            drawn.append(Figure(f"{measure}{fold}", title, "By epoch, a line a model.", chart, words))
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


def recipes(run: Path, folds: list[int]) -> dict[str, list[int]]:
    """The text of each recipe.yaml and the folds that were trained with it."""
    texts: dict[str, list[int]] = {}
    for fold in folds:
        path = run / f"fold{fold}" / "weights" / "recipe.yaml"
        if path.is_file():
            texts.setdefault(path.read_text(errors="replace"), []).append(fold)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one self-contained page about a run.",
                                     epilog="example: python -m eval.report runs/small --against runs/frozen --output report.html")
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run: folds/, fold0/, score.json, summary.csv")
    parser.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    parser.add_argument("--against", type=Path, metavar="OTHER_RUN",
                        help="a run of the same folds: the page shows which queries changed most")
    parser.add_argument("--leaderboard", type=Path, metavar="FILE",
                        help="its boards of these data are shown (default: leaderboard.csv beside RUN, where it is there)")
    arguments = parser.parse_args()
    with alone(arguments.output):
        print(report(arguments.run, arguments.output, arguments.against, arguments.leaderboard))


if __name__ == "__main__":
    run(main)
