"""Valid places for the commands of solution/ and submission/: toy models, their embeddings and an index of them."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import pandas as pd

import readers
import toy
from eval import files as eval_files
from eval.files import write_json, write_table
from places import Command, answers, eval_argv, fold, nothing, table, there
from solution.errors import InputError


@contextlib.contextmanager
def offline_training():
    """A training of few epochs that asks nobody: a case that drops `pretrained` would ask timm's hub, which may not be there."""
    def refused(backbone: str):
        raise InputError(f"model.pretrained hub: {backbone} is not asked for here")

    with mock.patch("solution.spec.MOST_EPOCHS", 3), mock.patch("solution.weights.hub_state", refused):
        yield


def of_solution(root: Path) -> dict[str, Command]:
    import toy_names
    from solution import embed, explain, files, gallery, identify, predict, pseudo, quantize, rank, recipe, search, train, weigh
    from submission import main as offline, pack, rehearse
    from test_embed import ensemble, tiny

    place = root / "ranked"
    fold(place / "fold", images=True, whales=3)
    ensemble(place / "weights", tiny("first", 0, 32), tiny("second", 1, 32, predict={"mirror": "off"}))
    recipe.write_rank(recipe.Rank(fusion="reciprocal_rank", rerank="database_expansion"), place / "weights")
    words = ["--device", "cpu", "--engine", "torch", "--workers", "0"]
    with eval_argv(["embed", "--data", str(place / "fold/test"), "--weights", str(place / "weights"), "--output", str(place / "embeddings"), "--no-cache", *words]), contextlib.redirect_stderr(io.StringIO()):
        embed.main()
    with eval_argv(["search", "build", "--embeddings", str(place / "embeddings"), "--output", str(place / "index")]):
        search.main()
    write_table(answers(pd.read_csv(place / "fold/truth.csv", dtype=str), place / "fold/test", 0.9), place / "submission.csv")
    in_data = ["fold/test/metadata.csv", "fold/test/metadata.csv", "fold/test/query_scenarios.csv", "fold/test/queries/scenario01.csv", "fold/test/databases/scenario01.csv"]
    in_weights = ["weights/first.json", "weights/second.json", "weights/rank.json"]
    said = ("first", "second", "engine:", "time is up", "striped", "bare", "--engine", "metadata.csv", "tiny", "identify.json")
    ranked = dict(wrapped=files.run, says=said, fails=("error: no model got in",))
    tell = there(readers.loaded, "out/t.json")
    checked = lambda case: (readers.ranking(case / "out/submission.csv", case / "fold/test"), tell(case))
    prediction = ["--data", "{case}/fold/test", "--weights", "{case}/weights", "--output", "{case}/out/submission.csv", *words]
    asked = ["--embeddings", "{case}/embeddings", "--data", "{case}/fold/test", "--output", "{case}/out/submission.csv"]

    named = root / "named"
    whole = toy_names.fold(named / "made", toy_names.striped("striped", 0, 64))
    for part in ("test", "weights", "train"):
        shutil.copytree(whole / part, named / part)
    shutil.rmtree(named / "made")
    rows = pd.read_csv(named / "test/metadata.csv", dtype=str)
    images = rows.path.str.removeprefix("images/")
    table(named / "sure.csv", ["Image,Id,probability", *(f"{image},whale00{number % 4},0.9" for number, image in enumerate(images)), *(f"{image},new_whale,0.1" for image in images)])
    table(named / "named.csv", ["Image,Id", *(f"{image},whale00{number % 4} new_whale" for number, image in enumerate(images))])
    photographs = [f"{{case}}/test/{path}" for path in rows.path[:2]]
    said_names = lambda case: (readers.names(case / "out/names.csv", json.loads((case / "weights/identify.json").read_text())["columns"]), there(readers.chances, "out/p.csv")(case))
    in_names = ["test/metadata.csv", "train/metadata.csv", "weights/identify.json", "weights/identify.json", "weights/striped.json"]

    trained = root / "trained"
    toy.competition(trained / "data", n_whales=3, images_per_whale=(3, 4), size=(12, 20))
    (trained / "recipe.yaml").write_text("shared: {model: {backbone: test_efficientnet, pretrained: none}, train: {size: 32, epochs: 1, batch_size: 4}}\nmodels: {tiny: {}}\nabout: a toy\nprotocol: whale\nrank: {rerank: k_reciprocal, neighbours: 5}\nidentify: {by: neighbours, columns: [Image, Id], new: new_whale}\n")
    with eval_argv(["train", "--recipe", str(trained / "recipe.yaml"), "--data", str(trained / "data"), "--output", str(trained / "weights"), "--device", "cpu", "--workers", "0"]), contextlib.redirect_stderr(io.StringIO()):
        train.main()
    training = ["--recipe", "{case}/recipe.yaml", "--data", "{case}/data", "--device", "cpu", "--workers", "0"]
    packed = root / "packed"
    shutil.copytree(place / "weights", packed / "weights")
    write_json({"seed": 1, "commit": None, "packages": {}}, packed / "weights/provenance.json")
    shutil.copy(trained / "recipe.yaml", packed / "weights/recipe.yaml")
    write_json({"format": 1, "time_limit": 60, "files": {"weights/first.json": {"size": (place / "weights/first.json").stat().st_size, "sha256": offline.sha256(place / "weights/first.json")}}}, packed / "manifest.json")

    def rehearsed(args) -> dict:
        """Its checks, without what takes a process."""
        asked = rehearse.asked_of(args.data)
        if args.truth:
            rehearse.same_kind(args.truth, asked, args.data)
        case = args.data.parents[1]
        seconds = rehearse.phases_of_main(case / "timings.json")
        found = rehearse.verdict(args.submission, args, asked)
        write_json({**found, "seconds": seconds}, case / "out/rehearsal.json")
        return {**found, "killed": None, "exit_code": 0, "passed": not found["strict_errors"]}

    write_json({"embed_seconds": 1.5, "rank_seconds": 1}, place / "timings.json")

    def played() -> None:
        offline.check(Path(sys.argv[1]), offline.manifest_of(Path(sys.argv[1])))
        offline.limit(offline.manifest_of(Path(sys.argv[1])))

    return {
        "predict": Command(place, predict.main, prediction, in_data * 2 + in_weights, ["fold/test", "weights"], checked, [["--no-cache"], [], ["--strict"], ["--timings", "{case}/out/t.json"], ["--embeddings", "{case}/out/e"]],
                           stays=("submission.csv",), **ranked),
        "predict names": Command(named, predict.main, ["--data", "{case}/test", "--weights", "{case}/weights", "--output", "{case}/out/names.csv", *words, "--no-cache"], in_names, ["test", "train", "weights"], said_names,
                                 [[], ["--probabilities", "{case}/out/p.csv"], ["--gallery", "{case}/train"], ["--strict"]], stays=("names.csv",), **ranked),
        "embed": Command(place, embed.main, ["--data", "{case}/fold/test", "--weights", "{case}/weights", "--output", "{case}/out/e", *words, "--no-cache"], in_data[:1] * 2 + in_weights, ["fold/test", "weights"], nothing,
                         [[], ["--shard", "1/2"], ["--shard", "3/2"], ["--shard", "²/3"]], stays=(), **ranked),
        "rank": Command(place, rank.main, asked, in_data[2:] + ["embeddings/first.json", "embeddings/second.json", "embeddings/rank.json"], ["fold/test", "embeddings"], checked,
                        [[], ["--models", "first"], ["--no-mirror"], ["--models", "../first"], ["--timings", "{case}/out/t.json"]], wrapped=files.run),
        "weigh": Command(place, weigh.main, ["--weights", "{case}/weights", "--embeddings", "{case}/embeddings", "--fold", "{case}/fold", "--output", "{case}/out/weights"],
                         in_weights + ["fold/truth.csv", "fold/labels.csv", "fold/test/query_scenarios.csv", "embeddings/first.json"], ["fold", "weights", "embeddings"], nothing, wrapped=files.run),
        "search build": Command(place, search.main, ["build", "--embeddings", "{case}/embeddings", "--output", "{case}/out/index"], ["embeddings/first.json", "embeddings/second.json"], ["embeddings"],
                                there(readers.loaded, "out/index/index.json"), wrapped=files.run),
        "search ask": Command(place, search.main, ["ask", "--embeddings", "{case}/embeddings", "--index", "{case}/index", "--output", "{case}/out/a.csv"], ["index/index.json"] * 3 + ["embeddings/first.json"], ["embeddings", "index"],
                              there(lambda path: [readers.number(row["score"], 0, 1) for row in readers.table(path)], "out/a.csv"), [[], ["--top", "1000000000"], ["--top", "0"]], wrapped=files.run),
        "identify": Command(named, identify.main, [*photographs, "--weights", "{case}/weights", "--gallery", "{case}/train", "--device", "cpu"], ["train/metadata.csv", "weights/identify.json", "weights/identify.json", "weights/striped.json"],
                            ["test", "train", "weights"], nothing, [["--no-cache"], ["--no-cache", "--picture", "{case}/out/m.jpg"]], **ranked),
        "explain": Command(place, explain.main, ["--data", "{case}/fold/test", "--weights", "{case}/weights", "--submission", "{case}/submission.csv", "--output", "{case}/out/explain", "--device", "cpu", "--workers", "0", "--pairs", "2"],
                           ["submission.csv"] * 4 + in_data + in_weights, ["fold/test", "weights", "submission.csv"], there(lambda path: readers.table(path / "pairs.csv"), "out/explain"), [[], ["--queries", "x"], ["--pairs", "0"]], **ranked),
        "explain names": Command(named, explain.main, ["--data", "{case}/test", "--weights", "{case}/weights", "--submission", "{case}/named.csv", "--gallery", "{case}/train", "--output", "{case}/out/explain", "--device", "cpu", "--workers", "0",
                                                       "--pairs", "1"], ["named.csv", "named.csv", "test/metadata.csv", "train/metadata.csv", "weights/identify.json"], ["test", "train", "weights", "named.csv"],
                                 there(lambda path: readers.table(path / "pairs.csv"), "out/explain"), **ranked),
        "pseudo": Command(named, pseudo.main, ["--data", "{case}/train", "--asked", "{case}/test", "--probabilities", "{case}/sure.csv", "--output", "{case}/out/data"], ["sure.csv", "sure.csv", "train/metadata.csv", "test/metadata.csv"],
                          ["sure.csv", "train", "test"], there(lambda path: readers.data(path, True), "out/data"), [[], ["--confidence", "0.5"], ["--confidence", "nan"], ["--confidence", "1e400"]], wrapped=files.run),
        "quantize": Command(place, quantize.main, ["--data", "{case}/fold/test", "--weights", "{case}/weights"], in_data[:1] * 2 + in_weights, ["fold/test", "weights"], nothing, [["--photographs", "2"], ["--photographs", "0"], ["--seed", "9" * 30]],
                            patched=lambda: mock.patch.multiple(quantize, decided=lambda *rest: "not run here"), **ranked),
        "train --dry-run": Command(trained, train.main, [*training, "--output", "{case}/out/weights", "--dry-run"], ["recipe.yaml"] * 4 + ["data/metadata.csv"] * 2, ["data", "recipe.yaml"], nothing, wrapped=files.run, says=said,
                                   fails=("lower train.learning_rate",), patched=lambda: mock.patch("solution.fitting.trial", lambda *rest: (0.01, 0.0, 100.0))),
        "train": Command(trained, train.main, [*training, "--output", "{case}/out/weights"], ["recipe.yaml"] * 2 + ["data/metadata.csv"] * 3, ["data", "recipe.yaml"], nothing, wrapped=files.run, says=said, starts=("git",),
                         fails=("lower train.learning_rate",), stays=("weights", "weights.resume"), patched=offline_training),
        "train --resume": Command(trained, train.main, [*training, "--output", "{case}/weights", "--resume"], ["weights/provenance.json"] * 2 + ["weights/recipe.yaml"] * 2 + ["recipe.yaml", "data/metadata.csv"], ["data", "recipe.yaml", "weights", "."],
                                  nothing, wrapped=files.run, says=said, starts=("git",), changes=("weights", "weights.resume"), patched=offline_training),
        "pack": Command(packed, pack.main, ["--weights", "{case}/weights", "--output", "{case}/out/s.zip"], [*in_weights, "weights/provenance.json", "weights/recipe.yaml"], ["weights"], nothing,
                        [[], ["--precision", "full"]], wrapped=lambda main: eval_files.run(lambda: files.run(main))),
        "submission main": Command(packed, played, ["{case}"], ["manifest.json"], ["."], nothing, wrapped=lambda main: main(), stays=()),
        "rehearse, its checks": Command(place, rehearse.main, ["{case}/submission.csv", "--data", "{case}/fold/test", "--output", "{case}/out/r"], in_data + ["submission.csv"] * 3 + ["timings.json", "fold/truth.csv"], ["fold", "submission.csv", "timings.json"],
                                        there(readers.loaded, "out/rehearsal.json"), [[], ["--truth", "{case}/fold/truth.csv"]], patched=lambda: mock.patch.multiple(rehearse, rehearse=rehearsed, show=lambda *rest: None), fails=("log.txt has what it said",),
                                        stays=("rehearsal.json",)),
    }
