"""A labelled data directory + a recipe -> weights: every model of the recipe, or the one that --model names.

    python -m solution.train --recipe small --data FOLD/train --output WEIGHTS

Reads DATA/metadata.csv and its photographs. Writes WEIGHTS/MODEL.npz, MODEL.json and MODEL.log.csv for each model, recipe.yaml as
resolved, rank.json where it ranks otherwise than by cosine, and provenance.json; for recipes that name individuals also gallery/, classifier/ and, with --validate, identify.json.
A photograph that cannot be read is told and left out; where they are more than 5 % (sift.SHARE) the training stops before it begins.
The last epoch ships. Checkpoints lie in WEIGHTS.resume/ until a model is finished. On several GPUs:
torchrun --nproc-per-node 4 -m solution.train ... (on several machines too: docs/machines.md)
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Callable, List, Optional

import numpy as np
import pandas as pd

from solution import checkpoints, gallery, recipe, sift
from solution.device import chosen, default_workers
from solution.files import Failure, InputError, alone, natural, read_object, run, seconds, write_json
from solution.ranks import first, together, world
from solution.sift import fingerprint, labelled, photographs_of, training_set

PACKAGES = "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow", "albumentations", "lightning-fabric"
RESERVE = 3.0  # seconds that --time-limit keeps for the last checkpoint, besides one step


def provenance(args: argparse.Namespace, table: pd.DataFrame, lost: List[str], device: str) -> dict:
    """`data` is of the whole table; `lost` are the ids of the photographs that could not be read."""
    left = table[~table.image_id.isin(lost)]
    git = shutil.which("git") or "false"
    commit = subprocess.run([git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    command = shlex.join(["python", "-m", "solution.train", *sys.argv[1:]])
    packages = {name: version(name) for name in PACKAGES}
    return {"command": command, "seed": args.seed, "device": device, "data": fingerprint(table), "images": len(left),
            "whales": len(np.setdiff1d(left.whale_id, "")), "unreadable": len(lost), "unreadable_ids": lost, "commit": commit or None,
            "python": sys.version.split()[0], "packages": packages}


def asked_for(args: argparse.Namespace, chosen_recipe: recipe.Recipe) -> List[recipe.Spec]:
    names = [spec.name for spec in chosen_recipe.models]
    if args.model is not None and args.model not in names:
        raise InputError(f"--model: recipe {chosen_recipe.name} has no {args.model!r}{recipe.nearest(args.model, names)}; it has {', '.join(names)}")
    return [spec for spec in chosen_recipe.models if args.model in (None, spec.name)]


def prepared(args: argparse.Namespace, chosen_recipe: recipe.Recipe, wanted: List[recipe.Spec], table: pd.DataFrame) -> List[recipe.Spec]:
    """The models that are still to train; InputError where the output holds something else, or begun work without --resume."""
    begun = [path for spec in wanted for path in (args.output / f"{spec.name}.npz", checkpoints.place(args.output, spec)) if path.is_file()]
    if begun and not args.resume:
        raise InputError(f"{begun[0]}: already there; add --resume to go on, or choose another --output")
    if begun or any(args.output.glob("*.npz")):
        unchanged(args, chosen_recipe, table)
    return [spec for spec in wanted if not (args.output / f"{spec.name}.npz").is_file()]


def unchanged(args: argparse.Namespace, chosen_recipe: recipe.Recipe, table: pd.DataFrame) -> None:
    """InputError where the work that lies in the output was begun with another recipe, seed or data."""
    if recipe.load(str(args.output / "recipe.yaml")).models != chosen_recipe.models:
        raise InputError(f"{args.output}/recipe.yaml: {args.output} holds weights of another recipe; choose another --output")
    made = read_object(args.output / "provenance.json")
    for key, now in (("seed", args.seed), ("data", fingerprint(table))):
        if made.get(key) != now:
            raise InputError(f"{args.output}/provenance.json: its weights were begun with another {key}; go on with that, or choose another --output")


def otherwise(weights: Path, chosen_recipe: recipe.Recipe, trail: dict) -> bool:
    """Whether finished weights were to name in another way, on another inner fold or with another gallery."""
    made = read_object(weights / "provenance.json")
    return recipe.load(str(weights / "recipe.yaml")).identify != chosen_recipe.identify or any(made.get(key) != trail[key] for key in ("inner", "gallery"))


def apart(table: pd.DataFrame, asked: pd.DataFrame, args: argparse.Namespace) -> None:
    """InputError where a photograph of the inner fold is one of those that train."""
    both = np.intersect1d(table.image_id.to_numpy(str), asked.image_id.to_numpy(str))
    if len(both):
        raise InputError(f"--validate: {args.validate} asks for {both[0]}, which is in {args.data} too (and {len(both) - 1} others); train on the train part of that fold")


def unreadable(args: argparse.Namespace, chosen_recipe: recipe.Recipe, todo: List[recipe.Spec], table: pd.DataFrame, squares, workers: int) -> List[str]:
    """The image ids of the photographs that are left out, found anew where there is a model to train; InputError where work was begun
    without others."""
    trail = args.output / "provenance.json"
    made = read_object(trail).get("unreadable_ids", []) if trail.is_file() else []
    if not (isinstance(made, list) and all(isinstance(image_id, str) for image_id in made)):
        raise InputError(f"{trail}: unreadable_ids is no list of ids; choose another --output")
    if not todo:
        return made
    rows = sift.trained(table, chosen_recipe.models)
    lost = sift.left_out(rows, args.data, photographs_of(rows, args.data, todo[0]), squares, workers)
    if any(args.output.glob("*.npz")) or any(checkpoints.place(args.output, spec).is_file() for spec in todo):
        sift.refuse_others(trail, made, lost)
    return lost


def train(args: argparse.Namespace) -> None:
    """Trains what is asked for, and nobody else the same meanwhile: other models may be trained into the same weights by other processes."""
    started = time.monotonic()
    chosen_recipe = recipe.load(args.recipe)
    wanted = asked_for(args, chosen_recipe)
    with alone(*(args.output / f"{spec.name}.npz" for spec in wanted if first() and not args.dry_run)):
        train_all(wanted, chosen_recipe, args, started)


def train_all(wanted: List[recipe.Spec], chosen_recipe: recipe.Recipe, args: argparse.Namespace, started: float) -> None:
    table = labelled(args.data)
    doubtful = sift.doubtful(table, args.data, args.without, args.most)
    table = table[~table.image_id.isin(doubtful)].reset_index(drop=True)
    todo = prepared(args, chosen_recipe, wanted, table)
    from solution import batches, validate  # and torch: seconds that a wrong argument does not wait for

    inner = validate.inner_fold(args.validate)
    further = validate.further_gallery(args.gallery)
    ranked = args.validate if inner is None else None  # a fold of names is asked once, when all models are there
    if inner is not None:
        apart(table, inner.asked, args)
    device = chosen(args.device)
    workers = default_workers(device) if args.workers is None else args.workers
    if inner is not None or chosen_recipe.protocol == "identify":
        gallery.check_names(table, args.data)
    if args.dry_run:
        return dry_run(todo, table, args, device)
    # Asked before the photographs are read, which takes minutes; of several processes each would have an answer of its own.
    if todo and world() == 1 and timer(started, args.time_limit)():
        return tell_stopped(todo, chosen_recipe)
    squares = batches.Squares()
    lost = unreadable(args, chosen_recipe, todo, table, squares, workers)
    trail = {**provenance(args, table, lost, device), **{name: None if data is None else fingerprint(data) for name, data in (("inner", inner and inner.asked), ("gallery", further))},
             "doubtful": len(doubtful), "doubtful_ids": doubtful}
    if first() and (todo or otherwise(args.output, chosen_recipe, trail)):
        (args.output / "identify.json").unlink(missing_ok=True)  # fitted for other weights, or otherwise than is wanted now
        shutil.rmtree(args.output / "gallery", ignore_errors=True)
        recipe.save(chosen_recipe, args.output / "recipe.yaml")
        write_json(trail, args.output / "provenance.json")
    if first():
        recipe.keep_rank(chosen_recipe, args.output)
    for spec in wanted if first() else []:
        if spec not in todo:
            checkpoints.drop(checkpoints.place(args.output, spec))  # which a run leaves that is killed between its last two steps
    table = table[~table.image_id.isin(lost)].reset_index(drop=True)
    for number, spec in enumerate(todo):
        if not train_one(spec, table, args, squares, ranked, device, workers, started):
            return tell_stopped(todo[number:], chosen_recipe)
    if first() and (inner is not None or further is not None or chosen_recipe.protocol == "identify"):
        ship_gallery(args, chosen_recipe, inner, further, doubtful, device, workers)
    print(f"{args.output}: {', '.join(spec.name for spec in todo) or 'nothing left to do'}{' trained' if todo else ''}")


def tell_stopped(left: List[recipe.Spec], chosen_recipe: recipe.Recipe) -> None:
    print(f"stopped by --time-limit in {left[0].name}, {len(left)} of {len(chosen_recipe.models)} models to finish; the same command with --resume goes on")


def train_one(spec: recipe.Spec, table: pd.DataFrame, args: argparse.Namespace, squares, ranked: Optional[Path], device: str, workers: int, started: float) -> bool:
    """Whether the model could be finished before the time limit."""
    from solution.fitting import Fitting

    validate = validation_of(ranked, spec, device, workers)
    training = training_set(table, args.data, spec, squares)
    fitting = Fitting(spec, training, args.seed, device, workers, checkpoints.place(args.output, spec))
    left_out = f" ({len(table) - len(training.labels)} without a whale_id are left out)" if len(table) > len(training.labels) else ""
    print(f"{spec.name}: {fitting.source}, {len(training.labels)} images{left_out} of {len(training.whale_ids)} whales, {spec.train.size} px, on {device}", file=sys.stderr)
    fitting.resume()
    if first():
        fitting.check_room(args.output)
    # Asked before `fit` may read the photographs in another size, which takes minutes; that time is none of a step's.
    if fitting.on_first(timer(started, args.time_limit)) or not fitting.fit(timer(started, args.time_limit), validate):
        return False
    if first() and not (args.output / "provenance.json").is_file():
        raise Failure(f"{args.output}: what was written there is gone; was its disk taken away? With it back, the same command with --resume goes on")
    fitting.save(args.output)
    return True


def validation_of(fold: Optional[Path], spec: recipe.Spec, device: str, workers: int) -> Optional[Callable]:
    """What is asked after each epoch: the MAP@20 of a fold of rankings."""
    from solution import validate

    return None if fold is None else validate.validation(fold, spec, device, workers)


def ship_gallery(args: argparse.Namespace, chosen_recipe: recipe.Recipe, inner, further, doubtful: List[str], device: str, workers: int) -> None:
    """Puts the gallery of the trained models beside them, and what is fitted on the inner fold."""
    from solution import validate

    specs = recipe.specs(args.output)
    missing = sorted({spec.name for spec in chosen_recipe.models} - {spec.name for spec in specs})
    wanted = ["identify.json"] * (inner is not None) + [f"gallery/{spec.name}.npz" for spec in specs]
    if missing:
        print(f"{args.output}: the gallery waits for {', '.join(missing)}")
    elif not all((args.output / name).is_file() for name in wanted):
        validate.ship(args.output, specs, chosen_recipe.identify, args.data, inner, further, device, workers, doubtful)


def timer(started: float, limit: Optional[float]) -> Callable[[], bool]:
    """A function to ask before each step whether another one still fits: the slowest so far is what the next may take."""
    last, slowest = None, 0.0

    def stop() -> bool:
        nonlocal last, slowest
        now = time.monotonic()
        last, slowest = now, max(slowest, now - (last or now))
        return limit is not None and now - started + slowest + RESERVE > limit

    return stop


def dry_run(todo: List[recipe.Spec], table: pd.DataFrame, args: argparse.Namespace, device: str) -> None:
    """Says what each model would take, from a few steps on some of the images; writes nothing."""
    from solution.fitting import trial

    total = 0.0
    for spec in todo:
        whole_set = training_set(table, args.data, spec)
        part = sift.first_readable(table[table.whale_id != ""], spec.train.batch_size)
        seconds, learning, megabytes = trial(spec, training_set(part, args.data, spec), len(whole_set.labels), args.seed, device)
        steps = len(whole_set.all_labels) // spec.train.batch_size * spec.train.all_epochs
        total += seconds * steps + learning
        further = f", then local evidence learns for {learning / 60:.1f} min" * bool(spec.predict.local_size)
        print(f"{spec.name}: {steps} steps of {spec.train.batch_size} images at {spec.train.size} px, {seconds:.2f} s each: {seconds * steps / 60:.1f} min{further}, {megabytes:.0f} MB")
    print(f"{len(todo)} models, {len(table)} images of {len(np.setdiff1d(table.whale_id, ''))} whales, on {device}: about {total / 60:.0f} min")


def many(text: str) -> float:
    """An argument that is a whole number above 0, or a share below 1."""
    if not re.fullmatch(r"[0-9]{1,15}|0?\.[0-9]{1,15}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is neither a whole number above 0 nor a share below 1, such as 0.05")
    return float(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train the models of a recipe on the labelled photographs of a data directory. Photographs that cannot be read are told "
        "and left out; where they are more than 5 %, nothing is trained.",
        epilog="example: python -m solution.train --recipe small --data runs/nyala/folds/0/train --output weights --time-limit 3600",
    )
    parser.add_argument("--recipe", required=True, help="a name from solution/recipes, or the path of a .yaml file")
    parser.add_argument("--data", type=Path, required=True, help="data directory whose metadata.csv has whale_id")
    parser.add_argument("--output", type=Path, required=True, help="directory for the weights")
    parser.add_argument("--validate", type=Path, metavar="FOLD", help="inner fold: its MAP@20 after each epoch; of protocol identify, identify.json is fitted on it")
    parser.add_argument("--gallery", type=Path, metavar="DATA", help="labelled photographs that travel with the weights besides those of --data and the inner fold")
    parser.add_argument("--without", type=Path, metavar="FILE", help="leave out the photographs (image_id) of this table, such as solution.doubts writes")
    parser.add_argument("--most", type=many, metavar="N", help="only its first N rows; below 1 that share of the labelled photographs, such as 0.05")
    parser.add_argument("--model", help="train this model of the recipe only")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped; finished models are kept")
    parser.add_argument("--time-limit", type=seconds, metavar="SECONDS", help="stop in time with a checkpoint (exit 0); --resume goes on")
    parser.add_argument("--dry-run", action="store_true", help="say how long it would take and how much memory, write nothing")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=natural, help="processes that read and augment (default: by device)")
    args = parser.parse_args()
    if args.most is not None and args.without is None:
        raise InputError("--most: says how many rows of --without FILE count; give that table")
    with together("the same command with --resume goes on from the last checkpoint"), contextlib.ExitStack() as quiet:
        if not first():
            nowhere = quiet.enter_context(open(os.devnull, "w"))
            quiet.enter_context(redirect_stdout(nowhere)), quiet.enter_context(redirect_stderr(nowhere))
        train(args)


if __name__ == "__main__":
    run(main, relief="lower train.batch_size or train.size in the recipe, or --workers")
