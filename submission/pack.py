"""Weights -> submission.zip, which runs anywhere the organisers' packages are; or a kernel folder for Kaggle.

    python -m submission.pack --weights WEIGHTS --output submission.zip --fold folds/0

Reads WEIGHTS/NAME.npz, NAME.json and rank.json, and where individuals are named identify.json, gallery/ and classifier/. Writes main.py,
manifest.json, MODEL_CARD.md, the inference path of solution/ and the weights, and nothing else; beside the zip the card once more, as
submission.card.md. The same weights give the same bytes. With --fold the models are put in the order of what they add per second, and
what half precision changes is told. Expect half the size of the weights, in seconds; with --fold twice a prediction of that fold.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import List, Optional

import numpy as np

from eval.files import InputError, alone, check_file, check_room, read_json, run, whole, whole_directory, write_json
from eval.outputs import emptied, hidden, told_of
from solution import recipe
from solution.files import arrays, read_object, write_arrays
from solution.files import run as run_solution
from submission import archive, card
from submission.cache import cached
from submission.main import sha256

HERE = Path(__file__).parent
TIME_LIMIT = {"drivendata": 3 * 3600, "kaggle": 9 * 3600}  # seconds
INFERENCE = ("__init__", "deadline", "device", "embed", "engines", "errors", "files", "fusion", "gallery", "identify", "images", "kept", "known", "local", "locks",
             "models", "naming", "npz", "onnx_engine", "onnx_export", "outputs", "pixels", "places", "predict", "rank", "recipe", "reciprocal", "rerank",
             "routes", "scenarios", "shards", "shortage", "spec", "tables", "ties", "torch_engine")
PARTS = ("", "local", "gallery", "classifier")  # the folders of WEIGHTS that hold arrays by model
COUNTED = {"MAP@20": "top-20 rows", "MAP@5": "photographs' five names"}  # of which half precision changes some
TRAIL = ("seed", "data", "commit", "packages")  # of provenance.json; no command lines, which hold paths


def pack(args: argparse.Namespace, folder: Path) -> dict:
    """Fills `folder` with what is packed and returns its manifest."""
    specs = recipe.specs(args.weights)
    tell_missing(args.weights, [spec.name for spec in specs])
    (folder / "solution").mkdir()
    shutil.copyfile(HERE / "main.py", folder / "main.py")
    for name in INFERENCE:
        shutil.copyfile(HERE.parent / "solution" / f"{name}.py", folder / "solution" / f"{name}.py")
    for spec in specs:
        copy_model(args.weights, spec.name, folder / "weights", args.precision)
    recipe.write_rank(recipe.read_rank(args.weights), folder / "weights")
    copy_identification(args.weights, [spec.name for spec in specs], folder / "weights")
    known = measure(args, folder) if args.fold else {"metric": None, "models": [{"name": spec.name} for spec in specs], "half": None}
    for position, model in enumerate(known["models"] if args.fold else []):
        path = folder / "weights" / f"{model['name']}.json"
        write_json({**read_json(path), "position": position}, path)
    manifest = {"format": 1, "target": args.target, "time_limit": TIME_LIMIT[args.target], "precision": args.precision, "metric": known["metric"],
                "half_precision": known["half"] or "not measured", "models": known["models"], "trained": trail(args.weights)}
    card.write(folder, manifest, provenance(args.weights), card.evidence(args.scores), card.Licences(args.data_licence, args.weights_licence))
    manifest["files"] = listed(folder)
    write_json(manifest, folder / "manifest.json")
    return manifest


def tell_missing(weights: Path, trained: List[str]) -> None:
    """Warns where WEIGHTS holds less than its recipe is for."""
    if (weights / "recipe.yaml").is_file():
        wanted = recipe.load(str(weights / "recipe.yaml"))
        missing = [spec.name for spec in wanted.models if spec.name not in trained]
        if missing:
            print(f"warning: {weights} has no weights of {', '.join(missing)} yet; packed without")
        if wanted.protocol == "identify" and not (weights / "identify.json").is_file():
            print(f"warning: {weights} has no identify.json; what is packed names no individuals. Train with --validate FOLD of protocol identify")


def copy_model(weights: Path, name: str, target: Path, precision: str) -> None:
    """A model's weights and, where they are there, its gallery and its classifier."""
    for path in (weights / part / f"{name}.npz" for part in PARTS):
        if path.is_file():
            values = arrays(path)
            if precision == "half":
                values = {key: halved(value) for key, value in values.items()}
            write_arrays(target / path.relative_to(weights), **values)
    shutil.copyfile(weights / f"{name}.json", target / f"{name}.json")


def copy_identification(weights: Path, names: List[str], target: Path) -> None:
    """identify.json where there is one; InputError where it, or the galleries that it goes with, could not be used."""
    if (weights / "identify.json").is_file():
        from solution import gallery, identify

        identify.read(weights / "identify.json")
        gallery.read(weights, names)
        shutil.copyfile(weights / "identify.json", target / "identify.json")


def halved(array: np.ndarray) -> np.ndarray:
    """Float32 weights as float16. Vectors stay: batch normalisation divides by the roots of small variances, where float16
    has few digits left, and they are a hundredth of the bytes. So do arrays that hold more than float16 can."""
    if array.dtype != np.float32 or array.ndim < 2 or not np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
        return array
    return array.astype(np.float16)


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """What `submission.measure` finds on the fold, from the cache where the same was measured on this machine before."""
    from solution.device import chosen

    device = chosen(args.device)
    tables = sorted(path for path in [args.fold / "truth.csv", *(args.fold / "test").rglob("*.csv")] if path.is_file())
    packed = listed(folder)
    weights = [sha256(args.weights / name[len("weights/"):]) for name in packed if name.startswith("weights/")]
    key = json.dumps([device, weights, packed, [sha256(path) for path in tables]], sort_keys=True)

    def measured() -> dict:
        from submission import measure

        return measure.measured(args.fold, args.weights, folder / "weights" if args.precision == "half" else None, device)

    return cached(f"measured-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json", measured)


def listed(folder: Path) -> dict:
    """Size and SHA-256 of each file below `folder`, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)} for path in files}


def provenance(weights: Path) -> dict:
    return read_object(weights / "provenance.json") if (weights / "provenance.json").is_file() else {}


def trail(weights: Path) -> dict:
    made = provenance(weights)
    return {key: made[key] for key in TRAIL if key in made}


def kernel(folder: Path, owner: str, wheels: Optional[Path]) -> None:
    """Adds what makes a packed folder a Kaggle kernel and the dataset that it reads."""
    slug = "whale-ranking"
    shutil.copyfile(HERE / "kaggle" / "kernel.py", folder / "kernel.py")
    write_json({
        "id": f"{owner}/{slug}", "title": "Whale ranking", "code_file": "kernel.py", "language": "python", "kernel_type": "script",
        "is_private": True, "enable_gpu": True, "enable_internet": False, "dataset_sources": [f"{owner}/{slug}-weights"],
        "competition_sources": [], "kernel_sources": [],
    }, folder / "kernel-metadata.json")
    write_json({"id": f"{owner}/{slug}-weights", "title": "Whale ranking weights", "licenses": [{"name": "other"}]}, folder / "dataset-metadata.json")
    for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
        (folder / "wheels").mkdir(exist_ok=True)
        shutil.copyfile(wheel, folder / "wheels" / wheel.name)


def show(manifest: dict, args: argparse.Namespace) -> None:
    size = sum(file["size"] for file in manifest["files"].values())
    print(f"{args.output}: {len(manifest['models'])} models in {manifest['precision']} precision, {len(manifest['files']) + 1} files, {size / 1e6:.1f} MB")
    for model in manifest["models"] if args.fold else []:
        print("  {name:<16} adds {gain:+.4f} {metric} (alone {alone:.4f}) in {ms:.1f} ms an image".format(**model, metric=manifest["metric"], ms=1000 * model["seconds_per_image"]))
    if args.precision == "half":
        print("half precision against full: " + half_line(manifest["half_precision"], manifest["metric"], args.fold))


def half_line(half, metric: Optional[str], fold: Optional[Path]) -> str:
    if half == "not measured":
        return "not measured; --fold FOLD measures it"
    before, after = half["full"], half["half"]
    return f"{100 * half['share_that_differs']:.2f} % of the {COUNTED[metric]} differ on {fold}, {metric} {before:.4f} -> {after:.4f} ({after - before:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Pack trained weights with the inference path as an offline submission.",
        epilog="example: python -m submission.pack --weights runs/demo/fold0/weights --output submission.zip --fold runs/demo/folds/0")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="the zip; with --target kaggle the folder, which must not be there yet")
    parser.add_argument("--target", choices=list(TIME_LIMIT), default="drivendata")
    parser.add_argument("--precision", choices=["half", "full"], default="half", help="of the packed weights (default: half)")
    parser.add_argument("--fold", type=Path, help="fold with test/ and truth.csv: orders the models, measures half precision")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="what --fold measures on")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="score.json of a run, for the card; with RUN/folds/manifest.json where that is there")
    parser.add_argument("--data-licence", metavar="TEXT", help="of the training photographs, for the card (default: not stated)")
    parser.add_argument("--weights-licence", metavar="TEXT", help="of the weights, for the card (default: not stated)")
    parser.add_argument("--owner", default="OWNER", help="with --target kaggle: your user name there")
    parser.add_argument("--wheels", type=Path, help="with --target kaggle: directory of wheels to install there")
    args = parser.parse_args()
    if args.wheels and not any(args.wheels.glob("*.whl")):
        raise InputError(f"--wheels: {args.wheels} holds no .whl; pip download --only-binary :all: --dest {args.wheels} PACKAGE fetches them")
    if args.scores:
        check_file(args.scores)
    if args.target == "kaggle":
        with whole_directory(args.output) as folder:
            manifest = pack(args, folder)
            kernel(folder, args.owner, args.wheels)
    else:
        files = hidden(args.output, "files")
        with alone(args.output), told_of(args.output, files), emptied(files) as folder:
            size = sum(path.stat().st_size for path in args.weights.rglob("*.npz"))
            check_room(args.output, size if args.precision == "half" else 2 * size)  # for a while all that is packed lies there twice
            manifest = pack(args, folder)
            archive.zipped(folder, [*manifest["files"], "manifest.json"], args.output)
            with whole(args.output.with_name(f"{args.output.stem}.card.md")) as beside:
                shutil.copyfile(folder / card.NAME, beside)
    show(manifest, args)


if __name__ == "__main__":
    run(lambda: run_solution(main))  # bad input is one line, whichever of the two notices it
