"""The JSON files of a run, read with suspicion: a page made from them must not trip over their shape.

Reads score.json, folds/manifest.json and other objects. Writes nothing.

    read_score(run / "score.json"), read_manifest(run / "folds/manifest.json")      ->  dict, or None where there is no file
"""

import reprlib
from pathlib import Path
from typing import Sequence

from eval.files import InputError, read_json
from eval.score import MEASURES

NUMBER = (int, float, type(None))
KINDS = {dict: "an object", list: "a list", str: "a text", NUMBER: "a number"}
COUNTS = ["train_images", "train_whales", "test_images", "test_whales", "queries", "queries_not_made_without_a_true_match"]
SAME_FOLDS = ["metadata_sha256", "protocol", "seed", "n_folds", "date"]


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


def need(path: Path, kind: type | tuple, values: dict) -> None:
    """InputError for the first value that is not of this kind."""
    for key, value in values.items():
        if not isinstance(value, kind) or kind is NUMBER and (value or 0) < 0:  # no figure of these files is negative
            raise InputError(f"{path}: {key} is {reprlib.repr(value)}, not {KINDS[kind]}; write the file again")


def read_score(path: Path) -> dict | None:
    """A score.json of the shape that eval.score and eval.summary write; None where there is no file."""
    score = read_object(path, [*MEASURES, "n_queries", "ci95", "strict_errors", "scenarios"])
    if score is None:
        return None
    need(path, dict, {key: score.get(key, {}) for key in ("scenarios", "folds", "open_set")})
    need(path, dict, score["scenarios"])
    need(path, list, {"strict_errors": score["strict_errors"], "ci95": score["ci95"] or []})
    if score["ci95"] is not None and len(score["ci95"]) != 2:
        raise InputError(f"{path}: ci95 is {reprlib.repr(score['ci95'])}, not two numbers; write the file again")
    for part in [score, *score["scenarios"].values()]:
        need(path, NUMBER, {key: part.get(key, "missing") for key in [*MEASURES, "n_queries"]})
    for bound in score["ci95"] or []:
        need(path, NUMBER, {"ci95": bound})
    if "open_set" in score:
        need_open_set(path, score["open_set"])
    return score


def need_open_set(path: Path, open_set: dict) -> None:
    need(path, NUMBER, {f"open_set: {key}": value for key, value in open_set.items() if key != "wrong_above"})
    sure = open_set.get("wrong_above") or {}
    need(path, dict, {"open_set: wrong_above": sure})
    for least, counts in sure.items():
        if not least.replace(".", "", 1).isdecimal() or not isinstance(counts, list) or len(counts) != 2:
            raise InputError(f"{path}: open_set: wrong_above {least!r} is {reprlib.repr(counts)}, not two numbers; write the file again")
        need(path, NUMBER, {f"open_set: wrong_above {least}": count for count in counts})


def read_manifest(path: Path) -> dict | None:
    """A manifest.json of the shape that eval.folds writes; None where there is no file."""
    manifest = read_object(path, ["protocol", "seed", "folds"])
    if manifest is None:
        return None
    need(path, str, {"protocol": manifest["protocol"]})
    need(path, list, {"notes": manifest.get("notes", [])})
    need(path, NUMBER, {key: manifest.get(key) for key in ("images", "whales", "encounters", "images_without_whale_id")})
    need(path, dict, {"folds": manifest["folds"]})
    need(path, dict, {f"fold {name}": fold for name, fold in manifest["folds"].items()})
    for name, fold in manifest["folds"].items():
        need(path, NUMBER, {f"fold {name}: {key}": fold.get(key) for key in [*COUNTS, "chance_top1"]})
        need(path, dict, {f"fold {name}: scenarios": fold.get("scenarios", {})})
        scenarios = {f"fold {name}: {scenario}": asked for scenario, asked in fold.get("scenarios", {}).items()}
        need(path, dict, scenarios)
        need(path, NUMBER, {f"{scenario}: database": asked.get("database") for scenario, asked in scenarios.items()})
    return manifest


def read_timings(path: Path) -> dict:
    """The numbers of a timings.json, and the seconds of its models; InputError where one is no number from 0 on."""
    timing = read_json(path)
    models = timing.get("models", {}) if isinstance(timing, dict) else None
    if not isinstance(models, dict) or not all(isinstance(model, dict) for model in models.values()):
        raise InputError(f"{path}: not an object of numbers and `models`; run solution.predict again")
    told = [timing, *models.values()]
    for key, value in [(key, value) for part in told for key, value in part.items() if key.endswith("_seconds") or key == "images"]:
        if not isinstance(value, (int, float)) or not 0 <= value < 1e15:
            raise InputError(f"{path}: {key} is {reprlib.repr(value)}, not a number from 0 on; run solution.predict again")
    return timing


def same_folds(run: Path, other: Path) -> None:
    """InputError unless both runs were cut from the same data in the same way."""
    paths = [each / "folds" / "manifest.json" for each in (run, other)]
    mine, theirs = (read_manifest(path) for path in paths)
    for path, manifest in zip(paths, (mine, theirs)):
        if manifest is None:
            raise InputError(f"{path}: no such file; --against takes two runs that have their folds")
    for key in SAME_FOLDS:
        if mine.get(key) != theirs.get(key):
            raise InputError(f"{paths[1]}: {key} is {theirs.get(key)!r}, but {mine.get(key)!r} in {paths[0]}; "
                             "compare runs of the same folds")
