"""How many photographs a second a packed submission gets through: any zip with a main.py that the organisers could run.

    python -m eval.bench inference --submission submission.zip --compare other.zip
    python -m eval.bench inference        # three untrained models on the demo, against the reference

The word `reference` instead of another zip runs the same weights the published way (eval.reference); their similarities must then
agree within 1e-4. Every run is a small rehearsal (submission.rehearse): the zip unpacked anew, so that nothing helps that an earlier run kept, a
read-only copy of the photographs (eval.benchmarks.sample), `python main.py` without network or rights, its file checked. What the seconds
tell is in eval.benchmarks.speed. Shares are of all seconds of the runs on the larger size, starting included. Where other work holds the
machine up, `cpu`, the ratio of processor seconds, still tells two apart; it knows nothing of what runs side by side. Peak memory
is that of the process and its children together, pages they share counted once, looked at every 0.1 s, which is also how finely
the end of a run is seen; what takes less than this command itself, some 100 MB, is given as that. Everything lies in a temporary
directory, which is removed also on Ctrl-C.
"""

import argparse
import contextlib
import math
import resource
import sys
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import pandas as pd

from eval.benchmarks import rounds, sample, speed
from eval.files import InputError, progress, read_json, read_table
from eval.benchmarks.zips import reference, untrained
from submission import confinement, rehearse

# What the packed predictor notes in submission/timings.json, and what it is called here.
PHASES = {"load_seconds": "loading", "decode_seconds": "decode", "forward_seconds": "forward",
          "rank_seconds": "ranking", "write_seconds": "writing"}
NO_SHARES = f"its main.py notes no seconds in submission/timings.json that fit into its own: {', '.join(PHASES)}"
OURS, OTHER = "submission", "compare"
REFERENCE = Path("reference")  # the word instead of a zip


class Run(NamedTuple):
    """One run of main.py, and what it answered: its file."""

    seconds: float
    cpu_seconds: float  # of all its processes that were waited for
    peak_mb: float
    phases: dict[str, float] | None
    answers: pd.DataFrame


Runs = dict[int, list[Run]]  # of one submission, by number of photographs


def measured(args: argparse.Namespace) -> dict:
    """The figures of --submission and --compare. InputError for what cannot be run; exits 1 where a main.py fails, or where the
    reference answers something else."""
    with workplace() as folder:
        compare = args.compare or (None if args.submission else REFERENCE)
        for path in [path for path in (args.submission, compare) if path not in (None, REFERENCE)]:  # before anything slow
            rehearse.unpack(path, folder / "check")
            rehearse.remove(folder / "check")
        zips = {OURS: args.submission or untrained(folder)}
        if compare:
            zips[OTHER] = reference(zips[OURS], folder / "reference.zip") if compare == REFERENCE else compare
        sizes = sample.write_sizes(args.data or demo(folder / "demo"), args.sizes, folder)
        play, order = Player(folder, args.time_limit), turns(list(zips), sizes, args.repeats)
        for path in progress(list(zips.values()), "warming up"):
            play(path, sizes[0])
        runs: dict[str, Runs] = {which: {size: [] for size in sizes} for which in zips}
        for which, size in progress(order, "runs"):
            runs[which][size].append(play(zips[which], size))
    same = rounds.agreement(*(runs[which][sizes[1]][-1].answers for which in zips)) if compare == REFERENCE else {}
    return {**told({which: path.name for which, path in zips.items()}, runs), **same, "data": str(args.data or "demo"),
            "repeats": args.repeats, "order": [f"{which} {size}" for which, size in order], "threads": len(confinement.cores())}


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder that other users can enter, as main.py may run as one."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        rehearse.remove(folder)


def turns(submissions: list[str], sizes: tuple[int, int], repeats: int) -> list[tuple[str, int]]:
    """Who runs when, on how many photographs: by turns, each round in the opposite order of the one before."""
    once = [(submission, size) for size in sizes for submission in submissions]
    return [turn for number in range(repeats) for turn in (once[::-1] if number % 2 else once)]


def demo(data: Path) -> Path:
    from eval.sources.demo import write_demo

    return write_demo(data)


# One run

class Player:
    """Runs zips on FOLDER/<size>, each time in a new folder beside it."""

    def __init__(self, folder: Path, time_limit: float) -> None:
        self.folder, self.log, self.time_limit = folder / "run", folder / "log.txt", time_limit
        self.folder.mkdir()
        self.choice = confinement.strictest(Path(sys.executable), self.folder)

    def __call__(self, path: Path, size: int) -> Run:
        rehearse.unpack(path, self.folder)
        rehearse.copy_read_only(self.folder.with_name(str(size)), self.folder / "data")
        rehearse.hand_over(self.folder, self.choice)
        command, memory, before = [sys.executable, "main.py"], rehearse.memory() * 1e9, cpu_seconds()
        outcome = confinement.confined(command, self.folder, self.choice, self.log, self.time_limit, memory)
        if outcome.stopped or outcome.exit_code:
            why = f"was killed at {outcome.stopped}" if outcome.stopped else f"exited {outcome.exit_code}"
            sys.exit(f"error: {path}: main.py {why} on {size} photographs: {last_line(self.log)}")
        spent = cpu_seconds() - before
        answers, phases = self.answers(path, size), noted(self.folder / "submission" / "timings.json")
        rehearse.remove(self.folder)
        return Run(outcome.seconds, spent, outcome.peak_bytes / 1e6, phases, answers)

    def answers(self, path: Path, size: int) -> pd.DataFrame:
        """What it wrote; a file that breaks a rule or leaves out a query is no work that counts."""
        written = self.folder / "submission" / "submission.csv"
        verdict = rehearse.verdict(written, argparse.Namespace(truth=None), rehearse.asked_of(self.folder / "data"))
        wrong = verdict["strict_errors"] + verdict["warnings"]
        if wrong:
            why = wrong[0].replace(f"{self.folder}/", "")
            sys.exit(f"error: {path}: main.py exited 0 on {size} photographs, but its answer is not valid: {why}")
        return read_table(written)


def cpu_seconds() -> float:
    """Of all processes that this one has waited for, and that those have."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def last_line(log: Path) -> str:
    """The last words of a program, without what would move a terminal's cursor."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:300] if lines else "it said nothing"


def noted(path: Path) -> dict[str, float] | None:
    """Seconds by phase as main.py noted them; None where it noted nothing or something else."""
    try:
        table = read_json(path) if path.is_file() else None
        seconds = {name: float(table[key]) for key, name in PHASES.items()}
    except (InputError, TypeError, KeyError, ValueError, OverflowError, RecursionError):  # a stranger's file may hold anything
        return None
    return seconds if all(0 <= value < math.inf for value in seconds.values()) else None


# What the runs tell

def told(names: dict[str, str], runs: dict[str, Runs]) -> dict:
    """The figures of the submission and, where there is another one, of that too and of the two together."""
    ours = {"submission": names[OURS], **figures(runs[OURS])}
    if OTHER not in names:
        return {**ours, "ratio": None}
    answers, others = (runs[which][max(runs[which])][-1].answers for which in (OURS, OTHER))
    return {**ours, "compare": {"submission": names[OTHER], **figures(runs[OTHER])},
            **speed.ratios(seconds_of(runs[OURS]), seconds_of(runs[OTHER])),
            "cpu": speed.ratios(seconds_of(runs[OURS], "cpu_seconds"), seconds_of(runs[OTHER], "cpu_seconds")),
            "rows": len(answers), "rows_that_differ": len(answers) - len(answers.iloc[:, :2].merge(others.iloc[:, :2]))}


def seconds_of(runs: Runs, clock: str = "seconds") -> speed.BySize:
    return {size: [getattr(run, clock) for run in several] for size, several in runs.items()}


def figures(runs: Runs) -> dict:
    rounded = lambda clock: {size: [round(value, 2) for value in values] for size, values in seconds_of(runs, clock).items()}
    return {**speed.speed(seconds_of(runs)), "seconds_by_size": rounded("seconds"), "cpu_seconds_by_size": rounded("cpu_seconds"),
            "peak_mb_by_size": {size: round(max(run.peak_mb for run in several)) for size, several in runs.items()},
            **shares(runs[max(runs)])}


def shares(runs: list[Run]) -> dict:
    if all(run.phases for run in runs):
        phases = {name: sum(run.phases[name] for run in runs) for name in PHASES.values()}
        known = speed.shares(sum(run.seconds for run in runs), phases)
        if known:
            return {"shares": known}
    return {"shares": None, "no_shares": NO_SHARES}


def show(result: dict) -> None:
    for one in (result, *([result["compare"]] if "compare" in result else [])):
        known = one["images_per_second"] is not None
        rate = "{images_per_second:.1f} images/s after {start_up_seconds:.1f} s to start" if known else "{no_speed}"
        peak = ", ".join(f"{mb} MB on {size}" for size, mb in one["peak_mb_by_size"].items())
        spent = ", ".join(f"{name} {100 * share:.1f} %" for name, share in (one["shares"] or {}).items())
        print(f"{one['submission']}: {rate.format(**one)}; at most {peak} photographs\n  {spent or one['no_shares']}")
    if "compare" in result:
        spread = "{ratio:.2f} times ours, {ratio_least:.2f} to {ratio_most:.2f} by round{but}"
        for clock, found in {"seconds": result, "processor seconds": result["cpu"]}.items():
            told, rounds = sum(map(bool, found["ratio_of_rounds"])), len(found["ratio_of_rounds"])
            but = f"; only {told} of {rounds} rounds tell one, --sizes further apart tell more" if told < rounds else ""
            known = spread.format(**found, but=but) if found["ratio"] else "no round tells a ratio"
            print(f"{result['compare']['submission']}, {clock}: {known}")
        print("{rows_that_differ} of {rows} rows differ".format(**result))
