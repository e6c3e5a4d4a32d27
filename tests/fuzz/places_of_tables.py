"""Valid places for what cuts, scores and imports tables: eval.folds, score, compare, leaderboard, leakage and the importers."""

import shutil
from pathlib import Path
from typing import Callable

import pandas as pd

import readers
import toy
from eval.files import write_json, write_table
from places import Command, answers, eval_argv, fold, name_fold, nothing, pictures, table, there


def of_folds(root: Path) -> dict[str, Command]:
    from eval import folds

    toy.competition(root / "labels/data", n_whales=8, images_per_whale=(2, 3, 4), images=False)
    toy.competition(root / "photographs/data", n_whales=4, images_per_whale=(2, 3), size=(12, 20))
    protocols = [["--protocol", name] for name in ("whale", "encounter", "stratified", "time", "identify", "suite")]
    odd = [["--protocol", "encounter", "--n-folds", "1000000000"], ["--n-folds", "1"], ["--seed", "-1"], ["--date", "today"], ["--protocol", "time", "--date", "today"], ["--protocol", "time", "--date", "2018-08-05"],
           ["--protocol", "time", "--date", "0001-01-01"], ["--seed", "9" * 40], ["--keep"]]
    words = ["{case}/data", "--output", "{case}/out/folds", "--n-folds", "2"]
    common = dict(main=folds.main, words=words, hostile=["data/metadata.csv"], named=["data"])
    kept = folds.make(root / "labels/data", root / "kept/folds", "whale", 2, 0)
    shutil.copytree(root / "labels/data", root / "kept/data")
    manifest = dict(common, words=["{case}/data", "--output", "{case}/folds", "--n-folds", "2", "--keep"], hostile=["folds/manifest.json"] * 9 + ["data/metadata.csv"], named=["data", "folds", "."])
    return {"folds": Command(root / "labels", check=there(lambda path: readers.folds(path, False), "out/folds"), options=protocols * 3 + odd, **common),
            "folds of photographs": Command(root / "photographs", check=there(lambda path: readers.folds(path, True), "out/folds"), options=protocols[:5], **common),
            "folds --keep": Command(kept.parent, check=nothing, **manifest)}


def of_scores(root: Path) -> dict[str, Command]:
    from eval import compare, leaderboard, leakage, score

    place = root / "ranked"
    truth = pd.read_csv(fold(place / "folds/0") / "truth.csv", dtype=str)
    for name, best in (("a", 0.9), ("b", 0.8)):
        write_table(answers(truth, place / "folds/0/test", best), place / f"{name}.csv")
    queries = [f"{query},new_whale,0.{number % 10}" for number, query in enumerate(truth.query_id.unique())]
    table(place / "sure.csv", ["query_id,Id,probability", *queries])
    in_fold = ["folds/0/truth.csv", "folds/0/labels.csv", "folds/0/test/query_scenarios.csv", "folds/0/test/queries/scenario01.csv", "folds/0/test/databases/scenario01.csv"]
    written = [[], ["--json", "{case}/out/s.json"], ["--json", "{case}/out/s.json", "--per-query", "{case}/out/q.csv"], ["--probabilities", "{case}/sure.csv", "--json", "{case}/out/s.json"]]
    check = lambda case: (there(readers.scores, "out/s.json")(case), there(readers.per_query, "out/q.csv")(case))
    rules = dict(says=(), stays=("s.json", "q.csv"))
    names = root / "names"
    name_fold(names)
    board = [f"--add {{case}}/{name}.csv --fold {{case}}/folds/0 --name {name}".split() for name in "ab"]
    boards = root / "boards"
    shutil.copytree(place, boards)
    with eval_argv(["leaderboard", str(boards / "out/board.csv"), *(word.format(case=boards) for word in board[0])]):
        leaderboard.main()
    shutil.copytree(boards / "out", boards / "board")
    shutil.rmtree(boards / "out")
    images = root / "photographed"
    fold(images / "folds/0", images=True, whales=3)
    toy.competition(images / "folds/0/train", n_whales=2, images_per_whale=(2, 3), size=(12, 20), seed=3)
    return {
        "score": Command(place, score.main, ["{case}/a.csv", "{case}/folds/0/truth.csv"], ["a.csv"] * 4 + in_fold + ["sure.csv"], ["a.csv", "folds", "sure.csv"], check, written, **rules),
        "score of names": Command(names, score.main, ["{case}/submission.csv", "{case}/truth.csv"], ["submission.csv", "truth.csv", "probabilities.csv"], ["."], check,
                                  [options if "sure" not in str(options) else ["--probabilities", "{case}/probabilities.csv", "--json", "{case}/out/s.json"] for options in written], **rules),
        "compare": Command(place, compare.main, ["{case}/a.csv", "{case}/b.csv", "{case}/folds/0/truth.csv"], ["a.csv", "b.csv", *in_fold], ["a.csv", "b.csv", "folds"], there(readers.loaded, "out/c.json"),
                           [[], ["--json", "{case}/out/c.json"], ["--labels", "{case}/folds/0/labels.csv"]]),
        "leaderboard": Command(boards, leaderboard.main, ["{case}/board/board.csv"], ["board/board.csv"] * 4 + ["b.csv", "folds/manifest.json", "folds/manifest.json", "folds/0/truth.csv"], ["board", "a.csv", "b.csv", "folds"],
                               lambda case: readers.leaderboard(case / "board/board.csv"), [[], *board], changes=("board/board.csv",), stays=()),
        "leakage": Command(images, leakage.main, ["{case}/folds/0"], [*in_fold, "folds/0/test/metadata.csv", "folds/0/train/metadata.csv"] * 2, ["folds"], there(readers.loaded, "out/l.json"),
                           [[], ["--json", "{case}/out/l.json"]]),
    }


def of_importers(root: Path) -> dict[str, Command]:
    from eval import importers

    whaledo = toy.competition(root / "whaledo/source", n_whales=4, images_per_whale=(2, 3), size=(12, 20))
    write_table(toy.scenarios(whaledo), whaledo / "example_labels.csv")
    coco = {"images": [{"id": k, "file_name": f"{k}.jpg", "width": 9, "height": 7, "date_captured": "2017/08/07 20:38:36"} for k in range(4)], "categories": [{"id": 1, "name": "beluga"}],
            "annotations": [{"id": 10 + k, "image_id": k % 4, "category_id": 1, "name": f"w{k % 2}", "bbox": [0, 1, 5, 4], "viewpoint": "up", "theta": 0.5 * (k == 1),
                             "segmentation": [[0, 0, 5, 0, 5, 4, 0, 4]]} for k in range(5)]}
    write_json(coco, root / "coco/source/coco.json")
    pictures(root / "coco/source/images", *(f"{k}.jpg" for k in range(4)))
    for name, columns, folders in (("hwi", "Image,Id", ("train", "test")), ("happywhale", "image,species,individual_id", ("train_images", "test_images"))):
        source = root / name / "source"
        more = "beluga," * (name == "happywhale")
        table(source / "train.csv", [columns, *(f"{letter}.jpg,{more}w{number % 2}" for number, letter in enumerate("abc")), f"d.jpg,{more}new_whale"])
        table(source / "sample_submission.csv", [columns.split(",")[0] + ",Id", "y.jpg,new_whale", "z.jpg,new_whale"])
        table(source / "bounding_boxes.csv", [columns.split(",")[0] + ",x0,y0,x1,y1", "a.jpg,1,1,5,5", "y.jpg,0,0,4,4", "nobody.jpg,0,0,1,1"])
        pictures(source / folders[0], *(f"{letter}.jpg" for letter in "abcd")), pictures(source / folders[1], "y.jpg", "z.jpg")
    rows = [f"{k},sub/{k}.jpg,w{k % 2},\"[0, 0, 5, 4]\",2019-06-0{k + 1},2019-06-0{k + 1} 10:00:00,e{k % 2},left,beluga,9,7" for k in range(4)]
    table(root / "wildlife/source/table.csv", ["image_id,path,identity,bbox,date,timestamp,encounter_id,orientation,species,width,height", *rows])
    pictures(root / "wildlife/source/sub", *(f"{k}.jpg" for k in range(4)))
    pictures(root / "folders/source", "ANNA/1.jpg", "ANNA/2.jpg", "BEA/1.jpg", "x.jpg")
    made = there(lambda path: readers.data(path), "out/data")
    photographed = there(lambda path: readers.data(path, True), "out/data")
    both = lambda case: (made(case), there(lambda path: readers.data(path), "out/data/test")(case))

    def command(name: str, source: str, hostile: list[str], check: Callable, options: list[list[str]] = [[]]) -> Command:
        return Command(root / name, importers.main, [name, f"{{case}}/source{source}", "--output", "{case}/out/data"], [f"source/{file}" for file in hostile], ["source"], check, options)

    dated = ["--date-format", "%d/%m/%Y"]
    in_kaggle = ["train.csv", "train.csv", "sample_submission.csv", "bounding_boxes.csv"]
    return {
        "import whaledo": command("whaledo", "", ["metadata.csv"] * 3 + ["query_scenarios.csv", "queries/scenario01.csv", "databases/scenario01.csv", "example_labels.csv"],
                                  there(lambda path: readers.data(path, True, boxes=False), "out/data")),
        "import coco": command("coco", "/coco.json", ["coco.json"], made, [["--images", "{case}/source/images"]] * 4 + [[], dated, ["--identity", "id"], ["--identity", "bbox"]]),
        "import hwi": command("hwi", "", in_kaggle, both), "import happywhale": command("happywhale", "", in_kaggle, both),
        "import wildlife": command("wildlife", "/table.csv", ["table.csv"], photographed, [[]] * 5 + [dated, ["--identity", "species"], ["--identity", "x" * 5000], ["--date-format", "now"]]),
        "import folders": command("folders", "", ["ANNA/1.jpg", "BEA/1.jpg"], photographed),
    }
