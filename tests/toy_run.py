"""A toy run whose individuals, encounters, steps and recipe are named by an attacker.

    import toy_run
    run = toy_run.make(tmp_path / "runs")              # two folds of protocol `whale` with everything but embeddings
    other = toy_run.other(run, tmp_path / "other")     # another answer to the same queries
    names = toy_run.names(tmp_path)                    # one fold that is answered with names

Same arguments, same bytes.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import toy
from eval import folds, score, summary
from eval.files import write_json, write_table

HOSTILE = """</script><script>document.title="owned"</script>" onerror="document.title='owned'" \u2028${1}"""


def make(path: Path) -> Path:
    run = path / "a <b> run"
    data = toy.competition(path / "data", n_whales=10)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table[["whale_id", "encounter_id"]] += HOSTILE
    write_table(table, data / "metadata.csv")
    folds.make(data, run / "folds", "whale", n_folds=2)
    for k in (0, 1):
        write_fold(run, k, seed=k)
        write_training(run / f"fold{k}")
    write_json(summary.pooled([run / "fold0", run / "fold1"]), run / "score.json")
    write_table(pd.DataFrame([["folds", 1.5, 100], [HOSTILE, 125.2, 2048]], columns=["step", "seconds", "peak_mb"]), run / "summary.csv")
    return run


def other(run: Path, path: Path) -> Path:
    shutil.copytree(run, path)
    for k in (0, 1):
        write_fold(path, k, seed=10 + k)
    return path


def answers(fold: Path, seed: int) -> pd.DataFrame:
    """A submission whose true matches score higher than chance."""
    rng, truth = np.random.default_rng(seed), set(map(tuple, pd.read_csv(fold / "truth.csv").to_numpy()))
    rows = []
    for scenario in pd.read_csv(fold / "test/query_scenarios.csv").itertuples():
        database = pd.read_csv(fold / "test" / scenario.database_path).database_image_id
        for query in pd.read_csv(fold / "test" / scenario.queries_path).query_id:
            value = rng.uniform(0, 0.6, len(database)) + [0.3 * ((query, image) in truth) for image in database]
            rows += sorted(zip([query] * len(database), database, value), key=lambda row: -row[2])[:20]
    return pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"])


def write_fold(run: Path, k: int, seed: int) -> None:
    fold, truth = run / f"fold{k}", run / "folds" / str(k) / "truth.csv"
    evaluate(write_table(answers(run / "folds" / str(k), seed), fold / "submission.csv"), truth)


def evaluate(submission: Path, truth: Path) -> None:
    evaluation = score.evaluate(submission, truth)
    write_table(evaluation.per_query, submission.parent / "per_query.csv")
    write_json(score.summarise(*evaluation[:2]), submission.parent / "score.json")


def write_training(fold: Path) -> None:
    write_json({"embed_seconds": 1.25, "images": 9}, fold / "timings.json")
    write_json({"command": "python -m solution.train " + HOSTILE, "seed": 7, "packages": {"torch": "9.8"}}, fold / "weights/provenance.json")
    (fold / "weights/recipe.yaml").write_text(f"about: {HOSTILE}\n")
    log = pd.DataFrame({"epoch": [1, 2, 3], "learning_rate": 0.1, "loss": [3, 2, 1.5], "seconds": 1.0})
    write_table(log, fold / "weights/plain.log.csv")
    write_table(log.assign(map20=[np.nan, 0.2, 0.4]), fold / "weights/validated.log.csv")


def explain(run: Path, fold: int, n: int = 2) -> pd.DataFrame:
    """Pairs with a picture each, of the first queries with the first photograph found for them."""
    rows = pd.read_csv(run / f"fold{fold}/submission.csv").drop_duplicates("query_id").head(n)
    image = pd.read_csv(run / f"fold{fold}/per_query.csv").set_index("query_id").query_image_id
    pairs = pd.DataFrame({"query_id": rows.query_id, "query_image_id": image[rows.query_id].to_numpy(), "database_image_id": rows.database_image_id,
                          "place": 1, "similarity": rows.score, "picture": [f"{k}.png" for k in range(len(rows))]})
    write_table(pairs, run / f"fold{fold}/explain/pairs.csv")
    for k, name in enumerate(pairs.picture):
        Image.fromarray(np.full((40, 100, 3), 60 * k, np.uint8)).save(run / f"fold{fold}/explain" / name)
    return pairs


def names(path: Path) -> Path:
    """Names for the photographs of an `identify` fold: each answer holds the truth's label, a new individual and three others, in turn."""
    run = path / "names"
    data = toy.competition(path / "named", n_whales=15)
    fold = folds.make(data, run / "folds", "identify") / "0"
    truth = pd.read_csv(fold / "truth.csv")
    whales = sorted(set(pd.read_csv(fold / "train/metadata.csv").whale_id.dropna()))
    rng, rows = np.random.default_rng(0), []
    for image, label in truth.itertuples(index=False):
        given = list(dict.fromkeys([label, "new_whale", *rng.permutation(whales)[:4]]))[: 5]
        given = [given[k] for k in rng.permutation(5)] if rng.uniform() < 0.7 else [name for name in [*whales, "new_whale"] if name != label][:5]
        rows += [(image, name, value) for name, value in zip(given, (0.5, 0.2, 0.1, 0.1, 0.05))]
    sure = pd.DataFrame(rows, columns=["Image", "Id", "probability"])
    write_table(sure, run / "fold0/probabilities.csv")
    evaluate(write_table(sure.groupby("Image", sort=False).Id.agg(" ".join).reset_index(), run / "fold0/submission.csv"), fold / "truth.csv")
    write_json(summary.pooled([run / "fold0"]), run / "score.json")
    return run
