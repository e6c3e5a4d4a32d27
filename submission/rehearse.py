"""Runs submission.zip as the organisers would, on this machine, and says what they would see.

    python -m submission.rehearse submission.zip --data folds/0/test --output rehearsal --truth folds/0/truth.csv

Unpacks into OUTPUT, which must be empty, copies DATA there read-only (and removes the copy afterwards), and runs `python main.py`
in it: no network, no rights, 6 threads, 3 hours. Writes OUTPUT/submission/submission.csv and log.txt, and rehearsal.json.
DATA without scenarios asks for five names of every photograph. Exit status 0 only if main.py exits 0 in time and the file
breaks no rule; 2 for a zip that is not unpacked, else 1.
"""

import argparse
import math
import os
import shutil
import sys
import time
from pathlib import Path

import pandas as pd

from eval import score
from eval.files import InputError, read_json, read_table, run, write_json
from eval.rules import COLUMNS, LABEL_COLUMNS, Scenarios, header_rule, image_rules, listed, read_scenarios
from submission import archive, confinement, runtime

TIME_LIMIT = 3 * 3600  # seconds, the organisers'
MOST_NOTED = 1 << 20  # bytes of a timings.json
PHASES = ("embed", "load", "decode", "forward", "rank", "write")  # of the packed predictor; the second to fourth lie within the first


class Phases(dict):
    """Seconds by phase: `phases.did("unpack")` is told when a phase has ended."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def did(self, phase: str) -> None:
        now = time.monotonic()
        self[phase], self.last = round(now - self.last, 2), now


def rehearse(args: argparse.Namespace) -> dict:
    """The report; OUTPUT is filled."""
    if args.output.resolve() in (args.data.resolve(), *args.data.resolve().parents) or args.data.resolve() in args.output.resolve().parents:
        raise InputError(f"--output: {args.output} and {args.data} lie in each other; choose another --output")
    asked = asked_of(args.data)
    if args.truth:  # before the hours, not after them
        same_kind(args.truth, asked, args.data)
    python = runtime.python_of(args.runtime)
    phases = Phases()
    unpack(args.submission, args.output)
    phases.did("unpack")
    copy_read_only(args.data, args.output / "data")
    phases.did("copy the data")
    choice = confinement.strictest(python, args.output.resolve())
    hand_over(args.output, choice)
    outcome = play(args, python, choice)
    phases.did("main.py")
    remove(args.output / "data")
    report = {"passed": False, "runtime": f"{args.runtime}: {runtime.versions(python)}", **choice.told, "threads": len(confinement.cores()),
              "time_limit_seconds": args.time_limit or TIME_LIMIT, "memory_limit_mb": round(args.memory * 1000), "exit_code": outcome.exit_code,
              "killed": outcome.stopped or None, "peak_mb": round(outcome.peak_bytes / 1e6), "seconds": {**phases, **phases_of_main(args.output / "submission" / "timings.json")},
              **verdict(args.output / "submission" / "submission.csv", args, asked)}
    report["passed"] = outcome.exit_code == 0 and not report["strict_errors"]
    write_json(report, args.output / "rehearsal.json")
    return report


def asked_of(data: Path) -> Scenarios | pd.DataFrame:
    """The scenarios of a data directory, or where it has none, the photographs to name: a truth (Image, Id) without labels."""
    if (data / "query_scenarios.csv").is_file():
        return read_scenarios(data)
    path = read_table(data / "metadata.csv", ["image_id", "path"]).path
    return pd.DataFrame({"Image": path.map(os.path.basename).unique(), "Id": ""})


def same_kind(truth: Path, asked, data: Path) -> None:
    """InputError where a truth cannot score what the data ask."""
    kinds = {True: "rankings", False: "names"}
    given, wanted = score.read_truth(truth)[1], isinstance(asked, Scenarios)
    if given != wanted:
        raise InputError(f"--truth: {truth}: its answers are {kinds[given]}, those that {data} asks for are {kinds[wanted]}; give the truth beside it")


def unpack(path: Path, output: Path) -> None:
    names = archive.names(path)
    if "main.py" not in names:
        inner = [name for name in names if name.endswith("/main.py")]
        hint = f"it is in {inner[0]}: zip what is in the folder, not the folder" if inner else "pack with python -m submission.pack"
        raise InputError(f"{path}: no main.py at its root ({hint}); the organisers' entry point would exit 0 and score nothing")
    if any(name.split("/")[0] == "data" for name in names):
        raise InputError(f"{path}: holds data/, where the organisers' data come; leave it out")
    archive.unpacked(path, output)
    (output / "submission").mkdir(exist_ok=True)


def copy_read_only(data: Path, target: Path) -> None:
    """A copy, since links would let a program with rights change the originals."""
    shutil.copytree(data, target, copy_function=shutil.copyfile)
    for folder, _, files in os.walk(target):
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
        os.chmod(folder, 0o555)


def remove(target: Path) -> None:
    """A folder that a stranger's program may have made read-only, or replaced by a link."""
    if target.is_symlink():
        target.unlink()
    for folder, folders, _ in os.walk(target):
        os.chmod(folder, 0o755)
    shutil.rmtree(target, ignore_errors=True)


def hand_over(output: Path, choice: confinement.Confinement) -> None:
    """Gives everything but the data to the user that runs main.py."""
    if choice.user:
        for path in [output, *(path for path in output.rglob("*") if path.relative_to(output).parts[0] != "data")]:
            os.chown(path, choice.user["user"], choice.user["group"], follow_symlinks=False)


def play(args: argparse.Namespace, python: Path, choice: confinement.Confinement) -> confinement.Outcome:
    variables = {"SUBMISSION_TIME_LIMIT": f"{args.time_limit:g}"} if args.time_limit else {}
    log = args.output / "submission" / "log.txt"
    return confinement.confined([str(python), "main.py"], args.output.resolve(), choice, log, args.time_limit or TIME_LIMIT, args.memory * 1e9, **variables)


def phases_of_main(path: Path) -> dict[str, float]:
    """What the packed predictor notes of itself; nothing where another program runs or it was killed."""
    try:
        noted = read_json(path) if path.is_file() and path.stat().st_size < MOST_NOTED else {}
        return {f"main.py: {phase}": round(float(noted[f"{phase}_seconds"]), 2) for phase in PHASES if f"{phase}_seconds" in noted}
    except (InputError, TypeError, ValueError):  # a stranger's program may note anything
        return {}


def verdict(path: Path, args: argparse.Namespace, asked) -> dict:
    """`rows`, `strict_errors`, `warnings` and `score`, None without a truth."""
    try:
        real = Path(os.path.realpath(path))  # which is somewhere even where links go round
        if real.parts[-2:] != path.parts[-2:] or real.parents[1] != path.parents[1].resolve():
            raise InputError(f"{path}: is a link to somewhere else; a submission is a file of its own")
        rows = read_table(path)
        if args.truth:
            evaluation = score.evaluate(path, args.truth, args.data)
            errors, warnings, summary = evaluation.breaches, evaluation.warnings, score.summarise(evaluation.per_query, evaluation.breaches)
        else:
            (errors, warnings), summary = breaches(rows, asked), None
    except InputError as error:
        return {"rows": 0, "strict_errors": [str(error)], "warnings": [], "score": None}
    return {"rows": len(rows), "strict_errors": errors or ([] if len(rows) else ["it has no rows"]), "warnings": warnings, "score": summary}


def breaches(rows: pd.DataFrame, asked) -> tuple[list[str], list[str]]:
    """The rules that a file breaks, and what is missing from it, as `eval.score` tells them, without a truth."""
    accepted = [COLUMNS] if isinstance(asked, Scenarios) else LABEL_COLUMNS
    if list(rows.columns) not in accepted:
        return header_rule(rows.columns, accepted), []
    if not isinstance(asked, Scenarios):
        missing = asked.Image[~asked.Image.isin(rows.iloc[:, 0])]
        return score.score_labels(rows, asked, []).breaches, score.counted("photographs that are asked and missing", missing)
    number = pd.to_numeric(rows.score, errors="coerce").to_numpy(float)
    missing = asked.queries.query_id[~asked.queries.query_id.isin(rows.query_id)]
    return listed(image_rules(rows, number, asked), rows), score.counted("queries that are asked and missing", missing)


def show(report: dict, args: argparse.Namespace) -> None:
    for key in ("runtime", "network", "user", "files", "processes", "threads", "time_limit_seconds", "memory_limit_mb", "exit_code", "killed", "peak_mb", "rows"):
        print(f"{key:<20}{report[key]}")
    for phase, seconds in report["seconds"].items():
        print(f"{phase:<20}{seconds:.1f} s")
    print(f"{'strict validator':<20}{'refuses: ' + report['strict_errors'][0] if report['strict_errors'] else 'accepts'}")
    for warning in report["warnings"]:
        print(f"{'':<20}warning: {warning}")
    if report["score"]:
        score.show(report["score"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run a submission under the organisers' conditions and report what they would see.",
        epilog="example: python -m submission.rehearse submission.zip --data runs/demo/folds/0/test --output rehearsal --truth runs/demo/folds/0/truth.csv")
    parser.add_argument("submission", type=Path, help="the zip")
    parser.add_argument("--data", type=Path, required=True, help="data directory, as predict takes it")
    parser.add_argument("--output", type=Path, required=True, help="folder to run in, empty or not there yet")
    parser.add_argument("--runtime", choices=["drivendata", "current"], default="drivendata", help="the organisers' Python 3.9, or this one")
    parser.add_argument("--time-limit", type=positive, metavar="SECONDS", help="told to main.py, which is killed after it (default: 3 hours)")
    parser.add_argument("--truth", type=Path, help="the fold's truth.csv: the report then has the score")
    parser.add_argument("--memory", type=positive, metavar="GB", default=memory(), help="killed above it (default: this machine's, less an eighth)")
    args = parser.parse_args()
    report = rehearse(args)
    show(report, args)
    if not report["passed"]:
        why = report["killed"] and f"killed at {report['killed']}" or (f"main.py exited {report['exit_code']}" if report["exit_code"] else report["strict_errors"][0])
        sys.exit(f"error: {args.submission}: {why}; {args.output}/submission/log.txt has what it said")


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def memory() -> float:
    """GB that a rehearsal may use: of the machine it runs on, so that it cannot take the others' with it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 7 / 8 / 1e9


if __name__ == "__main__":
    run(main)
