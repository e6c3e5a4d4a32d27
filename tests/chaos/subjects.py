"""The commands that are killed, and a toy for each to work on.

    commands = subjects.made(tmp_path)      # {name: driver.Command}
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import toy
import toy_run
import toy_training as toying
from driver import Command, ran, start
from eval import folds, leaderboard
from eval.files import write_table
from solution import fitting
from solution.files import write_arrays
from test_embed import ensemble, tiny
from test_search import clustered, saved
from test_train import naming_recipe

STEPS = 9  # of the training `train`: 3 epochs of 3


def made(place: Path) -> dict[str, Command]:
    data = toy.competition(place / "data", n_whales=10)
    one = toying.write_recipe(place / "one.yaml")
    commands = [*trainings(place, data, one), *harness(place, data), *predictions(place), *searches(place)]
    return {command.name: command for command in commands}


def training(recipe_file: Path, data: Path, *more) -> list:
    return ["solution.train", *toying.arguments(recipe_file, data, Path("{}/weights"), "--resume", *more)]


def noting_steps(folder: Path) -> None:
    """Each step leaves a byte beside the folder."""
    take, told = fitting.Fitting.step, os.open(folder.with_suffix(".steps"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    fitting.Fitting.step = lambda self, *batch: (os.write(told, b"."), take(self, *batch))[1]


def with_a_checkpoint_a_step(folder: Path) -> None:
    noting_steps(folder)
    fitting.CHECKPOINT_SECONDS = 0.0


def trainings(place: Path, data: Path, one: Path) -> list[Command]:
    outer = folds.make(toy.competition(place / "named", n_whales=15), place / "named folds", "identify") / "0"
    inner = folds.make(outer / "train", place / "inner", "identify") / "0"
    two = naming_recipe(place / "two.yaml", "plain", "other")
    return [Command("train", training(one, data), patch=noting_steps),
            Command("train, a checkpoint a step", training(one, data), patch=with_a_checkpoint_a_step),
            Command("train for names", training(two, inner / "train", "--validate", inner))]


def harness(place: Path, data: Path) -> list[Command]:
    run = toy_run.make(place / "runs")
    fold, answers = run / "folds" / "0", run / "fold0" / "submission.csv"
    individuals = place / "individuals"
    for row in pd.read_csv(data / "metadata.csv").itertuples():
        (individuals / row.whale_id).mkdir(parents=True, exist_ok=True)
        shutil.copy(data / row.path, individuals / row.whale_id)
    board = lambda folder: shutil.copy(score_board(place, answers, fold), folder / "board.csv")
    return [Command("folds", ["eval.folds", data, "--output", "{}/folds", "--n-folds", "2", "--keep"]),
            Command("importer", ["eval.importers", "folders", individuals, "--output", "{}/data"], done="already exists"),
            Command("report", ["eval.report", run, "--output", "{}/report.html"]),
            Command("score", ["eval.score", answers, fold / "truth.csv", "--json", "{}/score.json", "--per-query", "{}/per_query.csv"]),
            Command("leaderboard", ["eval.leaderboard", "{}/board.csv", "--add", answers, "--fold", fold, "--name", "ours"], before=board),
            Command("step", ["eval.step", "{}/summary.csv", "nothing", "--", "true"])]


def score_board(place: Path, answers: Path, fold: Path) -> Path:
    """A leaderboard with another system on it."""
    if not (place / "board.csv").is_file():
        leaderboard.add(place / "board.csv", leaderboard.of_files([answers], [fold], "theirs"))
    return place / "board.csv"


def predictions(place: Path) -> list[Command]:
    fold = place / "fold"
    truth = toy.scenarios(toy.competition(fold / "test"))
    write_table(truth, fold / "truth.csv")
    ensemble(fold / "weights", tiny("small", 1, 32), tiny("large", 0, 48))
    write_table(toy_run.answers(fold, 0), fold / "submission.csv")
    image_id = pd.read_csv(fold / "test" / "metadata.csv").image_id.to_numpy(str)
    saved_as(fold / "embeddings", image_id)
    here = ["--data", fold / "test", "--weights", fold / "weights", "--device", "cpu"]
    explain = ["solution.explain", *here, "--workers", 0, "--submission", fold / "submission.csv", "--pairs", 8, "--output", "{}/explain"]
    earlier = lambda folder: shutil.copytree(explained(place), folder / "explain")
    return [Command("predict", ["solution.predict", *here, "--engine", "torch", "--output", "{}/submission.csv", "--embeddings", "{}/embeddings", "--timings", "{}/timings.json"]),
            Command("embed", ["solution.embed", *here, "--engine", "torch", "--output", "{}/embeddings"]),
            Command("rank", ["solution.rank", "--data", fold / "test", "--embeddings", fold / "embeddings", "--output", "{}/submission.csv"]),
            Command("explain", explain),
            Command("explain again", explain, before=earlier),
            Command("pack", ["submission.pack", "--weights", fold / "weights", "--output", "{}/submission.zip"]),
            Command("pack a kernel", ["submission.pack", "--weights", fold / "weights", "--output", "{}/kernel", "--target", "kaggle"], done="already exists")]


def saved_as(folder: Path, image_id: np.ndarray) -> None:
    rows = clustered(len(image_id))
    write_arrays(folder / "model.npz", image_id=image_id, plain=rows, mirror=rows[:, ::-1])


def explained(place: Path) -> Path:
    """An earlier explanation, of other pairs."""
    folder = place / "explained"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "pairs.csv").write_text("query_id,query_image_id,database_image_id,place,similarity,picture\n")
    return folder


def searches(place: Path) -> list[Command]:
    first, more = saved(place / "first", "d", clustered(200)), saved(place / "more", "e", clustered(100, seed=1))
    build = ["solution.search", "build", "--embeddings", first, "--output"]
    built = lambda folder: shutil.copytree(index_of(place, build), folder / "index")
    return [Command("search build", [*build, "{}/index"], done="is there already"),
            Command("search add", ["solution.search", "add", "--embeddings", more, "--index", "{}/index"], before=built, done="is there twice")]


def index_of(place: Path, build: list) -> Path:
    if not (place / "index").is_dir():
        command = Command("index", [*build, "{}/index"])
        assert ran(command, start(command, place / "building")).status == 0
        (place / "building" / "index").rename(place / "index")
    return place / "index"
