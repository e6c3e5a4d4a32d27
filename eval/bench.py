"""How fast: runs two things by turns in the same minutes, on the same machine, and prints one JSON object.

    python -m eval.bench inference --submission submission.zip --compare other.zip --json bench.json

`inference` runs packed submissions (eval.benchmarks.throughput says how), `ranking` and `scoring` what is made up for them (eval.benchmarks.ranking,
eval.benchmarks.scoring), each against eval.reference, the published way. Prints a few lines to read and, as the last one, the object: every
figure with its unit in the key, `ratio` = the other's seconds / ours without start-up, the machine, threads, package versions.
What the machine does besides moves all seconds; only ratios can be taken elsewhere. Expect minutes: each run starts a process.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from eval.files import run, write_json

PACKAGES = ("numpy", "pandas", "torch", "timm", "pillow", "opencv-python-headless", "scikit-learn", "scipy", "onnxruntime")


def inference(args: argparse.Namespace) -> dict:
    from eval.benchmarks import throughput

    result = throughput.measured(args)
    throughput.show(result)
    return result


def ranking(args: argparse.Namespace) -> dict:
    from eval.benchmarks import ranking as timed

    result = timed.measured(args)
    timed.show(result)
    return result


def scoring(args: argparse.Namespace) -> dict:
    from eval.benchmarks import scoring as timed

    result = timed.measured(args)
    timed.show(result)
    return result


def surroundings() -> dict:
    """What a time depends on besides what is timed."""
    machine = {"processor": processor(), "cores": os.cpu_count(), "memory_gb": memory_gb(), "graphics": graphics()}
    packages = {name: version(name) for name in PACKAGES}
    return {"machine": machine, "system": platform.platform(), "python": platform.python_version(), "packages": packages}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def graphics() -> list[str]:
    """The names of NVIDIA's cards."""
    if not shutil.which("nvidia-smi"):
        return []
    done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def sizes(text: str) -> tuple[int, int]:
    """Two numbers of photographs, the smaller first."""
    numbers = sorted({int(word) for word in text.split(",") if word.strip().isdecimal()})
    if len(numbers) != 2 or numbers[0] < 2 or text.count(",") != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not two different numbers of photographs above 1, such as 64,256")
    return numbers[0], numbers[1]


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def shape(text: str) -> tuple[int, ...]:
    """Numbers of queries and of images, and an even width."""
    numbers = [int(word) for word in text.split(",") if word.strip().isdecimal()]
    if len(numbers) != 3 or text.count(",") != 2 or min(numbers) < 2 or numbers[2] % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers above 1, the last of them even, such as 4419,3400,8544")
    return tuple(numbers)


def add_inference(benchmarks) -> None:
    parser = benchmarks.add_parser(
        "inference", help="images per second, memory and shares of time of packed submissions",
        description="Run packed submissions on two numbers of photographs by turns; what the larger one takes longer is the work.",
        epilog="example: python -m eval.bench inference --submission submission.zip --compare other.zip --data runs/demo/data")
    parser.add_argument("--submission", type=Path, metavar="ZIP",
                        help="what python -m submission.pack wrote, or any other with a main.py (default: three untrained EfficientNet-Lites)")
    parser.add_argument("--compare", type=Path, metavar="ZIP", help="another one, by turns with it: `ratio` is its seconds / ours; the word "
                        "reference runs the same weights the published way (default where no --submission is named)")
    parser.add_argument("--data", type=Path,
                        help="whose photographs are asked, for names where it has no scenarios (default: the demo, drawn for it)")
    parser.add_argument("--sizes", type=sizes, default=(64, 256), metavar="N,M",
                        help="numbers of photographs (default 64,256), fewer where DATA has fewer")
    parser.add_argument("--time-limit", type=count, default=3 * 3600, metavar="SECONDS",
                        help="a run that takes longer is killed (default: 3 hours); main.py is not told")
    add_common(parser, inference)


def add_ranking(benchmarks) -> None:
    parser = benchmarks.add_parser(
        "ranking", help="python -m solution.rank against a table copy and a call of scikit-learn a query",
        description="Rank made-up embeddings with solution.rank, the reference and a bare matrix product, by turns.",
        epilog="example: python -m eval.bench ranking --json ranking.json")
    parser.add_argument("--shape", type=shape, default=(4419, 3400, 8544), metavar="Q,M,D",
                        help="queries, database images, numbers an image (default 4419,3400,8544)")
    add_common(parser, ranking)


def add_scoring(benchmarks) -> None:
    parser = benchmarks.add_parser(
        "scoring", help="python -m eval.score against a group of rows and a call of scikit-learn a query",
        description="Score a made-up submission of 20 rows a query with eval.score and the official way, by turns.",
        epilog="example: python -m eval.bench scoring --json scoring.json")
    parser.add_argument("--queries", type=count, default=4419, metavar="N", help="how many are asked (default 4419, with 93,277 true matches)")
    add_common(parser, scoring)


def add_common(parser: argparse.ArgumentParser, benchmark) -> None:
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds, after one to warm up (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the object there")
    parser.set_defaults(benchmark=benchmark)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.bench", description="Measure speed, as ratios of things that are run by turns.",
        epilog="example: python -m eval.bench inference --submission submission.zip --json bench.json")
    benchmarks = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    for add in (add_inference, add_ranking, add_scoring):
        add(benchmarks)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs and lies about is cleared away then, too
    load = os.getloadavg()[0]
    result = {"benchmark": args.benchmark.__name__, **args.benchmark(args), "load_before": load, **surroundings()}
    if load > os.cpu_count() / 2:
        print(f"warning: {load:.1f} other processes wanted the {os.cpu_count()} cores; that spreads the seconds", file=sys.stderr)
    if args.json:
        write_json(result, args.json)
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    run(main)
