"""Valid places for every command, which the fuzzer then makes hostile: toy data, folds, weights and runs, made once.

    commands = commands.made(folder)
    commands["score"]                 # its words, the files that are changed, and who reads the answer

"""

import contextlib
import io
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, ContextManager
from unittest import mock

import pandas as pd
from PIL import Image

import readers
import toy
from eval import files as eval_files
from eval.files import write_json, write_table



@dataclass(frozen=True)
class Command:
    """`words` and `options` hold {case} for the folder of the case; `hostile` are the files of `template` that are changed, each by as
    many turns as it stands there; `named` what the words name; `out` is theirs to write."""

    template: Path
    main: Callable
    words: list[str]
    hostile: list[str]
    named: list[str]
    check: Callable[[Path], None]
    options: list[list[str]] = field(default_factory=lambda: [[]])
    wrapped: Callable = eval_files.run
    patched: Callable[[], ContextManager] = contextlib.nullcontext
    stays: tuple[str, ...] = ()  # of out/, where the input was refused: what is told of it
    says: tuple[str, ...] = ()  # how lines on stderr may begin besides warning: and note:
    fails: tuple[str, ...] = ()  # what may be said with exit status 1, being no fault of the input
    starts: tuple[str, ...] = ()  # processes that it starts itself
    changes: tuple[str, ...] = ()  # inputs that it is to write


def nothing(case: Path) -> None:
    """Told on the screen alone."""


def there(reader: Callable, *names: str) -> Callable[[Path], None]:
    """Reads what was written; options decide whether it was."""
    def check(case: Path) -> None:
        for name in names:
            if (case / name).exists():
                reader(case / name)
    return check


def table(path: Path, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (40 * number % 256, 90, 7 * number)).save(folder / name, "JPEG")


def labels_of(data: Path, target: Path) -> None:
    rows = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    write_table(rows.assign(original_image_id="o-" + rows.image_id)[["image_id", "original_image_id", "whale_id", "encounter_id", "timestamp"]], target)


def answers(truth: pd.DataFrame, data: Path, best: float) -> pd.DataFrame:
    """A valid ranking: three images a query, a true match among them."""
    rows = []
    for query, part in truth.groupby("query_id", sort=False):
        scenario, image = query.split("-")
        database = [one for one in pd.read_csv(data / f"databases/{scenario}.csv").database_image_id if one != image]
        chosen = list(dict.fromkeys([*part.database_image_id[:1], *database]))[:3]
        rows += [(query, one, best - 0.1 * place) for place, one in enumerate(chosen)]
    return pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"])


def fold(path: Path, images: bool = False, whales: int = 5) -> Path:
    """test/ with two scenarios, truth.csv, labels.csv, and manifest.json beside the fold."""
    data = toy.competition(path / "test", n_whales=whales, images_per_whale=(2, 3, 4), images=images, size=(12, 20))
    truth = toy.scenarios(data)
    write_table(truth, path / "truth.csv")
    labels_of(data, path / "labels.csv")
    hidden = pd.read_csv(data / "metadata.csv", dtype=str)
    write_table(hidden[["image_id", "path", "height", "width", "viewpoint", "date"]], data / "metadata.csv")
    manifest = {"protocol": "whale", "seed": 0, "n_folds": 5, "date": None, "metadata_sha256": "ab" * 32, "images": 9, "whales": 3, "notes": [], "folds": {"0": {
        "train_images": 1, "train_whales": 1, "test_images": 9, "test_whales": 3, "queries": 4, "chance_top1": 0.1, "left_out": {}, "scenarios": {"scenario01": {"kind": "one", "queries": 4, "database": 9}}}}}
    write_json(manifest, path.parent / "manifest.json")
    return path


def name_fold(path: Path) -> Path:
    table(path / "truth.csv", ["Image,Id", "a.jpg,w1", "b.jpg,w2", "c.jpg,new_whale", "d.jpg,w1"])
    table(path / "submission.csv", ["Image,Id", "a.jpg,w1 w2 new_whale", "b.jpg,w1 w2", "c.jpg,new_whale w3", "d.jpg,w3"])
    rows = [f"{image},{name},{chance}" for image in ("a.jpg", "b.jpg", "c.jpg", "d.jpg") for name, chance in (("w1", 0.6), ("w2", 0.3), ("new_whale", 0.1))]
    table(path / "probabilities.csv", ["Image,Id,probability", *rows])
    return path


@contextlib.contextmanager
def eval_argv(words: list[str]):
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(io.StringIO()):
        yield
