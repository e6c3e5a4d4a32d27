"""Valid places for what reads runs: eval.summary, report, ensembles, step, ladder, and the arguments of eval.bench."""

import contextlib
import io
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

import readers
from eval.files import write_json, write_table
from places import Command, fold, nothing, table, there


def of_runs(root: Path) -> dict[str, Command]:
    import toy_run
    from eval import ensembles, ladder, report, step, summary

    run = toy_run.make(root / "made").rename(root / "made/run")
    toy_run.explain(run, 0)
    shutil.rmtree(root / "made/data")
    models = ensembles.series({"first": True, "second": True}, "yes")
    rows = [{"variant": role.variant.name, "kind": role.kind, "models": "+".join(role.variant.models), "mirror": role.variant.mirror, "folds": "all", "n_queries": 9, "strict": 0.5, "low": 0.4, "high": 0.6, "map5_individuals": 0.5,
             "top1": 0.5, "gain": 0.1 if role.more else "", "gain_low": 0.0 if role.more else "", "gain_high": 0.2 if role.more else "", "seconds": 3.0 + number, "gain_per_second": ""} for number, role in enumerate(models)]
    write_table(pd.DataFrame(rows, columns=ensembles.COLUMNS), run / "ensembles.csv")
    timings = {"embed_seconds": 3.0, "load_seconds": 0.5, "decode_seconds": 0.5, "forward_seconds": 1.0, "rank_seconds": 0.2, "write_seconds": 0.1, "images": 9, "models": {"first": {"plain_seconds": 1.0, "mirror_seconds": 1.0}}}
    write_json(timings, run / "fold0/timings.json")
    in_run = ["run/score.json", "run/fold0/score.json", "run/fold0/per_query.csv", "run/summary.csv", "run/ensembles.csv", "run/folds/manifest.json"]
    more = ["run/fold0/submission.csv", "run/folds/0/truth.csv", "run/folds/0/labels.csv", "run/folds/0/test/metadata.csv", "run/fold0/timings.json", "run/fold0/weights/plain.log.csv", "run/fold0/weights/provenance.json",
            "run/fold0/explain/pairs.csv"]
    table(root / "step/summary.csv", ["step,seconds,peak_mb", "folds,1.5,100", "train,60.0,2000"])
    (root / "ladder").mkdir(parents=True)
    (root / "ladder/rows.yaml").write_text("plain: {about: as it is}\nslow: {about: slower, shared: {train: {epochs: 3}}, identify: {by: both}}\n")
    (root / "ladder/base.yaml").write_text("models: {m: {model: {backbone: test_efficientnet}}}\nshared: {train: {epochs: 2}}\n")
    fold(root / "ladder/folds/0")
    table(root / "ladder/folds/0/train/metadata.csv", ["image_id,path,whale_id", "a,a.jpg,w"])
    table(root / "ladder/ladder.csv", [",".join(ladder.COLUMNS), "old,0.5,0.4,0.6,,,,3.0,,abc"])
    undrawn = lambda: mock.patch.multiple("eval.page.charts", **dict.fromkeys(["curves", "lines", "reliability", "waterfall", "bubbles", "paths"], lambda *rest, **more: "<svg></svg>"))

    @contextlib.contextmanager
    def without_drawing():
        with undrawn(), mock.patch.multiple("eval.page.row_charts", forest=lambda *rest, **more: "<svg></svg>", bars=lambda *rest, **more: "<svg></svg>"):
            yield

    def failing(command: list) -> None:
        raise ladder.Failed("not run here")

    return {
        "summary": Command(root / "made", summary.main, ["{case}/run"], in_run, ["run"], lambda case: readers.scores(case / "run/score.json"), [[], ["--folds", "0"], ["--folds", "0,1"], ["--folds", "x"], ["--folds", "0,../x"]],
                           changes=("run/score.json",)),
        "report": Command(root / "made", report.main, ["{case}/run", "--output", "{case}/out/report.html"], [*in_run, *more], ["run"], there(readers.page, "out/report.html"), patched=without_drawing),
        "report, drawn": Command(root / "made", report.main, ["{case}/run", "--output", "{case}/out/report.html"], [*in_run, *more], ["run"], there(readers.page, "out/report.html"), [[], ["--against", "{case}/run"]]),
        "step": Command(root / "step", step.main, ["{case}/summary.csv", "train", "--", "true"], ["summary.csv"], ["summary.csv", "."], lambda case: readers.table(case / "summary.csv"), changes=("summary.csv",),
                        patched=lambda: mock.patch.object(step, "measured", lambda command: (0, 1.0, 5.0)), says=("\n== ", "== ")),
        "ladder": Command(root / "ladder", ladder.main, ["{case}/rows.yaml", "--recipe", "{case}/base.yaml", "--folds", "{case}/folds", "--output", "{case}/ladder.csv", "--keep", "{case}/out/keep"],
                          ["rows.yaml"] * 4 + ["base.yaml"] * 3 + ["folds/manifest.json", "ladder.csv"], ["."], nothing, [[]] * 6 + [["--only", "plain"], ["--only", "../x"]],
                          patched=lambda: mock.patch.object(ladder, "obey", failing), says=("row ", "plain", "slow", "no result", "a", "b", "é", "k", "x", "m", "C"), fails=("no result for",), changes=("ladder.csv",), stays=("keep",)),
    }


def of_ensembles(root: Path) -> dict[str, Command]:
    """The ranking within this process, one after the other."""
    from eval import ensembles
    from solution import files, rank, recipe
    from solution.files import write_arrays

    place = root / "run"
    fold(place / "folds/0")
    ids = pd.read_csv(place / "folds/0/test/metadata.csv", dtype=str).image_id
    for position, name in enumerate(("first", "second")):
        rows = np.random.default_rng(position).normal(size=(2, len(ids), 4)).astype(np.float32)
        write_arrays(place / f"fold0/embeddings/{name}.npz", image_id=ids.to_numpy(str), plain=rows[0], mirror=rows[1])
        write_json(recipe.plain(recipe.Spec(name, position, recipe.Model("b"))), place / f"fold0/embeddings/{name}.json")
    write_json({"images": 9, "models": {name: {"plain_seconds": 1.0, "mirror_seconds": 1.0} for name in ("first", "second")}}, place / "fold0/timings.json")

    def within(command: list[str], **rest):
        err = io.StringIO()
        with mock.patch.object(sys, "argv", command[2:]), contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            try:
                files.run(rank.main)
                code = 0
            except SystemExit as stopped:
                code = stopped.code
        return mock.Mock(returncode=code, stderr=err.getvalue())

    @contextlib.contextmanager
    def one_by_one():
        with mock.patch.object(ensembles.subprocess, "run", within), mock.patch.object(ensembles, "ThreadPool", lambda count: contextlib.nullcontext(mock.Mock(imap=map))):
            yield

    hostile = ["run/fold0/embeddings/first.json", "run/fold0/embeddings/second.json", "run/fold0/timings.json", "run/fold0/timings.json", "run/folds/manifest.json", "run/folds/0/truth.csv", "run/folds/0/labels.csv",
               "run/folds/0/test/query_scenarios.csv", "run/folds/0/test/queries/scenario01.csv"]
    return {"ensembles": Command(root, ensembles.main, ["{case}/run", "--leaderboard", "{case}/out/board.csv"], hostile, ["run"], there(readers.leaderboard, "out/board.csv"), [[], ["--folds", "0"], ["--folds", "٣"], ["--folds", "0,x"]],
                                 patched=one_by_one, changes=("run/ensembles.csv", "run/fold0/ensembles.csv"))}


def of_bench(root: Path) -> dict[str, Command]:
    """Its arguments alone."""
    from eval import bench

    table(root / "bench/x.csv", ["a", "1"])
    odd = [["scoring", "--queries", word] for word in ("0", "-1", "x", "1.5", "", "9" * 500, "²", "nan")] + [["inference", "--sizes", word] for word in ("1", "2,2", "a,b", "1,2,3", "", "2,,4")]
    odd += [["ranking", "--shape", word] for word in ("1,2", "4,4,3", "x", "0,0,0")] + [["nothing"], [], ["scoring", "--repeats", "0"], ["training", "--data"]]
    return {"bench, its arguments": Command(root / "bench", bench.main, [], ["x.csv"], ["x.csv"], nothing, odd)}
