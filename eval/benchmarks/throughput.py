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
import resource
import sys
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

import pandas as pd

from eval.benchmarks import options, rounds, sample, speed
from eval.benchmarks.notes import PHASES, engine_of, last_line, noted
from eval.benchmarks.zips import reference, untrained
from eval.files import progress, read_table
from submission import confinement, rehearse

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
    engine: str | None = None  # as main.py tells it


Runs = dict[int, list[Run]]  # of one submission, by number of photographs


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run packed submissions on two numbers of photographs by turns; what the larger one takes longer is the work."
    parser.epilog = "example: python -m eval.bench inference --submission submission.zip --compare other.zip --data runs/demo/data"
    parser.add_argument("--submission", type=Path, metavar="ZIP",
                        help="what python -m submission.pack wrote, or any other with a main.py (default: three untrained EfficientNet-Lites)")
    parser.add_argument("--compare", type=Path, metavar="ZIP", help="another one, by turns with it: `ratio` is its seconds / ours; the word "
                        "reference runs the same weights the published way (default where no --submission is named)")
    parser.add_argument("--data", type=Path,
                        help="whose photographs are asked, for names where it has no scenarios (default: the demo, drawn for it)")
    parser.add_argument("--sizes", type=options.sizes, default=(64, 256), metavar="N,M",
                        help="numbers of photographs (default 64,256); where DATA has fewer, they are repeated")
    parser.add_argument("--time-limit", type=options.count, default=3 * 3600, metavar="SECONDS",
                        help="a run that takes longer is killed (default: 3 hours); main.py is not told")


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
        sample.write_sizes(args.data or demo(folder / "demo"), args.sizes, folder, ranked=args.submission is None or compare == REFERENCE)
        play, order = Player(folder, args.time_limit), turns(list(zips), args.sizes, args.repeats)
        for path in progress(list(zips.values()), "warming up"):
            play(path, args.sizes[0])
        runs: dict[str, Runs] = {which: {size: [] for size in args.sizes} for which in zips}
        for which, size in progress(order, "runs"):
            runs[which][size].append(play(zips[which], size))
    same = rounds.agreement(*(runs[which][args.sizes[1]][-1].answers for which in zips)) if compare == REFERENCE else {}
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
        return Run(outcome.seconds, spent, outcome.peak_bytes / 1e6, phases, answers, engine_of(self.log))

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


# What the runs tell

def told(names: dict[str, str], runs: dict[str, Runs]) -> dict:
    """The figures of the submission and, where there is another one, of that too and of the two together."""
    ours = {"submission": names[OURS], **figures(runs[OURS])}
    if OTHER not in names:
        return {**ours, "ratio": None}
    answers, others = (runs[which][max(runs[which])][-1].answers for which in (OURS, OTHER))
    return {**ours, "compare": {"submission": names[OTHER], **figures(runs[OTHER])},
            **speed.ratios(seconds_of(runs[OURS]), seconds_of(runs[OTHER])),
            "ratio_with_start_up": speed.spread(*(seconds_of(runs[which])[max(runs[which])] for which in (OURS, OTHER)))["ratio"],
            "cpu": speed.ratios(seconds_of(runs[OURS], "cpu_seconds"), seconds_of(runs[OTHER], "cpu_seconds")),
            "rows": len(answers), "rows_that_differ": len(answers) - len(answers.iloc[:, :2].merge(others.iloc[:, :2]))}


def seconds_of(runs: Runs, clock: str = "seconds") -> speed.BySize:
    return {size: [getattr(run, clock) for run in several] for size, several in runs.items()}


def figures(runs: Runs) -> dict:
    rounded = lambda clock: {size: [round(value, 2) for value in values] for size, values in seconds_of(runs, clock).items()}
    return {"engine": runs[max(runs)][-1].engine, **speed.speed(seconds_of(runs)),
            "seconds_by_size": rounded("seconds"), "cpu_seconds_by_size": rounded("cpu_seconds"),
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
        if one["engine"]:
            print(f"  engine: {one['engine']}")
    if "compare" in result:
        spread = "{ratio:.2f} times ours, {ratio_least:.2f} to {ratio_most:.2f} by round{but}"
        for clock, found in {"seconds": result, "processor seconds": result["cpu"]}.items():
            told, rounds = sum(map(bool, found["ratio_of_rounds"])), len(found["ratio_of_rounds"])
            but = f"; only {told} of {rounds} rounds tell one, --sizes further apart tell more" if told < rounds else ""
            known = spread.format(**found, but=but) if found["ratio"] else "no round tells a ratio"
            print(f"{result['compare']['submission']}, {clock}: {known}")
        print("whole runs, starting included: {ratio_with_start_up:.2f} times; {rows_that_differ} of {rows} rows differ".format(**result))
