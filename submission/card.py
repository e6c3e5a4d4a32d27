"""The card that travels with packed weights: what they are, what they were trained on, what they scored, and what is not known of them.

    card.write(folder, manifest, made, card.Evidence(score, folds), licences)      # FOLDER/MODEL_CARD.md

Reads the models in FOLDER/weights. Writes Markdown in the order of Mitchell et al., Model Cards for Model Reporting (FAccT 2019); what
nobody has measured or stated is called so. Same inputs, same bytes. Names from outside stand in code spans, where nothing of them is
Markdown or HTML.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

from eval.files import InputError, whole
from eval.page.records import NUMBER, need, read_manifest, read_score
from solution import recipe
from solution.files import arrays

NAME = "MODEL_CARD.md"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: measured, not learned
PROTOCOLS = {
    "whale": "whole individuals are held out, and no query meets a photograph of its own encounter: what a new population looks like",
    "encounter": "whole encounters are held out; the database is the training photographs",
    "stratified": "each individual's photographs are dealt out; near-duplicates fall on both sides, so the scores flatter",
    "time": "the latest photographs are asked, and the database is the earlier ones",
    "suite": "the competition's kinds of scenario over all photographs",
    "identify": "one photograph of each individual with several, and unknown ones, are to be named",
}
STARTS = {"hub": "weights of timm's hub", "embedded": "ImageNet weights of a package", "none": "random weights"}
MEASURES = {"strict": "MAP@20, strict", "official": "MAP@20, official", "map5_images": "MAP@5, photographs", "map5_individuals": "MAP@5, individuals", "top1": "top-1"}
NAME_MEASURES = {"strict": "MAP@5, strict", "official": "MAP@5, Kaggle", "top1": "top-1"}


class Evidence(NamedTuple):
    """A score.json and the manifest.json of the folds that it was measured on; None where they are not known."""

    score: dict | None
    folds: dict | None


class Licences(NamedTuple):
    data: str | None
    weights: str | None


def evidence(path: Path | None) -> Evidence:
    """Of RUN/score.json or RUN/fold0/score.json, with RUN/folds/manifest.json where it is there. InputError where one cannot be read."""
    if path is None:
        return Evidence(None, None)
    score = read_score(path)
    need(path, dict, score.get("folds") or {})
    for name, fold in (score.get("folds") or {}).items():
        need(path, NUMBER, {f"{name}: {key}": fold.get(key, "missing") for key in [*MEASURES, "n_queries"]})
        ends = fold.get("ci95") or [0, 0]
        if not (isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends)):
            raise InputError(f"{path}: {name}: ci95 is not two numbers; write the file again")
    manifests = [folder / "folds" / "manifest.json" for folder in (path.parent, path.parent.parent)]
    return Evidence(score, next(filter(None, map(read_manifest, manifests)), None))


def write(folder: Path, manifest: dict, made: dict, found: Evidence, licences: Licences) -> Path:
    """Writes the card of what lies in `folder`; `manifest` is that of the submission, `made` the training's provenance.json."""
    specs = recipe.specs(folder / "weights")
    naming = (folder / "weights" / "identify.json").is_file()
    sections = [
        ["# Model card", "", f"Embeddings of photographs of animals by {count(len(specs), 'model')}, to {'name the individual on each' if naming else 'rank photographs of known individuals'}."],
        ["## The models", "", *models(folder / "weights", specs, manifest)],
        ["## What they are for", "", *purpose(naming)],
        ["## Training data", "", *training(made)],
        ["## Evaluation", "", *protocol(found.folds), "", *scores(found.score, naming), "", *of_fold(manifest)],
        ["## Half precision", "", half_precision(manifest)],
        ["## Speed", "", *speed(manifest)],
        ["## Limits", "", *limits(found, naming)],
        ["## Licences", "", f"- Training photographs: {stated(licences.data)}", f"- Weights: {stated(licences.weights)}"],
        ["## How to use them", "", *usage(manifest)],
    ]
    with whole(folder / NAME) as beside:
        beside.write_text("\n\n".join("\n".join(section) for section in sections) + "\n", "utf-8")
    return folder / NAME


def models(weights: Path, specs: list[recipe.Spec], manifest: dict) -> list[str]:
    head = "| model | backbone | starts from | pixels | parameters | packed | mirror image | trained against |"
    rows = [head, "|---|---|---|---|---|---|---|---|", *(row(weights, spec) for spec in specs)]
    way = recipe.read_rank(weights)
    joined = {"concatenate": "their embeddings are joined and compared by cosine", "reciprocal_rank": "each ranks by cosine, and the lists are joined by reciprocal ranks"}
    closer = "".join(f"; {code(spec.name)} looks at {spec.predict.local_size} px for what two photographs share place by place" for spec in specs if spec.predict.local_size)
    return [*rows, "", f"They run in this order, {manifest['precision']} precision as packed; {joined.get(way.fusion) or code(way.fusion)}; re-ranking: {code(way.rerank)}{closer}."]


def row(weights: Path, spec: recipe.Spec) -> str:
    path = weights / f"{spec.name}.npz"
    parameters = sum(array.size for name, array in arrays(path).items() if name.rpartition(".")[2] not in STATISTICS)
    seen = f"{spec.test_size}" + (f" (trained at {spec.train.size})" if spec.test_size != spec.train.size else "")
    head = f"{spec.head.kind}, {count(spec.head.sub_centres, 'sub-centre')}" if spec.head.kind in ("arcface", "cosface") else spec.head.kind
    cells = [code(spec.name), code(spec.model.backbone), STARTS.get(spec.model.pretrained) or code(spec.model.pretrained.replace("\\", "/").rpartition("/")[2]),
             seen, f"{parameters:,}", f"{path.stat().st_size:,} bytes", spec.predict.mirror, f"{head}, {count(spec.train.all_epochs, 'epoch')}"]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def purpose(naming: bool) -> list[str]:
    asked = "each photograph gets five names, a new individual among them" if naming else "each query gets up to 20 photographs of a database, most alike first"
    return [f"To be looked at by people who know the animals: {asked}. An answer is a suggestion; its score is no probability unless one was fitted.",
            "Not for decisions about animals or people without such a look, nor for other kinds of animals than it was trained on, unless measured there."]


def training(made: dict) -> list[str]:
    """What provenance.json tells, no command line, which holds paths."""
    if not made:
        return ["Not stated: there was no provenance.json beside the weights."]
    lost, doubtful = made.get("unreadable"), made.get("doubtful")
    rows = {"photographs": made.get("images"), "individuals": made.get("whales"), "left out, unreadable": lost, "left out, doubtful": doubtful, "data, SHA-256": made.get("data"),
            "seed": made.get("seed"), "device": made.get("device"), "code, commit": made.get("commit"), "Python": made.get("python")}
    packages = made.get("packages")
    if isinstance(packages, dict):
        rows["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    return [f"- {name}: {code(value)}" for name, value in rows.items() if value is not None]


def protocol(folds: dict | None) -> list[str]:
    if folds is None:
        return ["Protocol: not stated."]
    name = folds["protocol"]
    told = f": {PROTOCOLS[name]}" if name in PROTOCOLS else ""
    return [f"Protocol {code(name)}{told}. Data: {number(folds.get('images'))} photographs of {number(folds.get('whales'))} individuals, SHA-256 of their table {code(folds.get('metadata_sha256'))}."]


def scores(score: dict | None, naming: bool) -> list[str]:
    """A table of the pooled score and each fold's."""
    if score is None:
        return ["Scores: not measured."]
    names = NAME_MEASURES if naming else MEASURES
    parts = {"all" if score.get("folds") else "this fold": score, **(score.get("folds") or {})}
    head = f"| | queries | {' | '.join(names.values())} | 95 % interval, strict |"
    rows = [f"| {code(name).replace('|', chr(92) + '|')} | {number(part['n_queries'])} | {' | '.join(value(part[key]) for key in names)} | {interval(part.get('ci95'))} |" for name, part in parts.items()]
    told = ["Of weights trained on each fold's training part alone: weights trained on everything have no score of their own. The interval is over redrawn individuals."]
    return [head, "|---" * (len(names) + 3) + "|", *rows, "", *told, *(f"Broken rule: {code(error)}" for error in score["strict_errors"])]


def of_fold(manifest: dict) -> list[str]:
    """What packing measured itself."""
    measured = [model for model in manifest["models"] if "alone" in model]
    if not measured:
        return ["What each model adds: not measured."]
    rows = [f"| {code(model['name'])} | {value(model['alone'])} | {model['gain']:+.4f} |" for model in measured]
    return ["Measured while packing, on one fold, in the order in which the models run; no interval.", "", f"| model | {manifest['metric']} alone | adds |", "|---|---|---|", *rows]


def half_precision(manifest: dict) -> str:
    half = manifest["half_precision"]
    if manifest["precision"] != "half":
        return "The weights are packed as they were trained, in full precision."
    if not isinstance(half, dict):
        return "Matrices are packed in half precision. What that changes: not measured."
    return (f"Matrices are packed in half precision: {100 * half['share_that_differs']:.2f} % of the answers differ, {manifest['metric']} {half['full']:.4f} becomes "
            f"{half['half']:.4f} ({half['half'] - half['full']:+.4f}).")


def speed(manifest: dict) -> list[str]:
    measured = [model for model in manifest["models"] if "seconds_per_image" in model]
    rows = [f"- {code(model['name'])}: {1000 * model['seconds_per_image']:.1f} ms a photograph, its mirror image included" for model in measured]
    return [*(rows or ["Not measured."]), *(["", "On the machine that packed them."] if rows else []), "", f"The run ends before its time limit, {manifest['time_limit']:,} s unless told otherwise, with what is ready by then."]


def limits(found: Evidence, naming: bool) -> list[str]:
    told = ["Nothing is known of other species, cameras, seasons or places than those of the training photographs; measure there first.",
            "Photographs of one encounter are near-duplicates: where such are in the database, results look better than they are.",
            "Whales with few photographs are ranked worse, and mislabelled training photographs are learned like others."]
    told += ["Whether an individual is new at all is answered by naming alone: a ranking always has a first place."] * (not naming)
    told += ["It was scored on the folds above alone; other splits of the same photographs may differ by more than the interval."] * (found.score is not None)
    return [f"- {line}" for line in told + [f"Note of the folds: {code(note)}" for note in (found.folds or {}).get("notes") or []]]


def usage(manifest: dict) -> list[str]:
    lines = {"drivendata": "In the unpacked zip, with the photographs' directory as `data/`; writes `submission/submission.csv`:",
             "kaggle": "As a Kaggle kernel, `kernel.py`; elsewhere in this folder, with the photographs' directory as `data/`; writes `submission/submission.csv`:"}
    return [lines[manifest["target"]], "", "    python main.py", "", "As the organisers would run it, without a network and within a time limit, in the project:", "",
            "    python -m submission.rehearse submission.zip --data DATA --output rehearsal"]


def stated(licence: str | None) -> str:
    return code(licence) if licence else "not stated"


def code(value: object) -> str:
    """Any value as a code span of one line: its fence is longer than any run of backticks in it."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))[:300].strip() or "none"
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def value(measured: float | None) -> str:
    return "not measured" if measured is None or not math.isfinite(measured) else f"{measured:.4f}"


def interval(ci95: list | None) -> str:
    return f"{value(ci95[0])} to {value(ci95[1])}" if ci95 else "none"


def number(counted: float | None) -> str:
    return "an unknown number of" if counted is None else f"{counted:,.0f}"


def count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
