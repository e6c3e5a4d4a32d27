"""How fast: runs two things by turns in the same minutes, on the same machine, and prints one JSON object.

    python -m eval.bench inference --submission submission.zip --compare other.zip --json bench.json

Every benchmark is a module of eval.benchmarks, whose first lines say what runs and what the figures mean. Most compare with
eval.reference, the published way. Prints a few lines to read and, as the last one, the object: every figure with its unit in the
key, `ratio` = the other's seconds / ours without start-up, the machine, threads, package versions.
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
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from eval.benchmarks.options import count
from eval.files import run, write_json

# The module of each in eval.benchmarks, and what it does. A module has `add(parser)` for its options, `measured(args)`, a dictionary for
# the JSON, and `show(figures)`, which prints what there is to read.
BENCHMARKS = {
    "inference": ("throughput", "images per second, memory and shares of time of packed submissions"),
    "forward": ("forward", "networks alone, in python -m solution.embed, in eager PyTorch and against the machine's peak"),
    "eight-bit": ("eight_bit", "python -m solution.embed in 8 bits and in float, and what 8 bits cost in MAP@20"),
    "decoding": ("decoding", "JPEGs decoded at full and at reduced scale, and what the similarities change by"),
    "ranking": ("ranking", "python -m solution.rank against a table copy and a call of scikit-learn a query"),
    "search": ("search", "python -m solution.search on two million made-up photographs against exact answers"),
    "scoring": ("scoring", "python -m eval.score against a group of rows and a call of scikit-learn a query"),
    "training": ("training", "python -m solution.train against a plain loop, and what either's answers are worth"),
    "startup": ("startup", "every command's --help and bad input, and how soon a prediction works"),
    "growth": ("growth", "what twice, four times and eight times the photographs, models and queries cost"),
}
PACKAGES = ("numpy", "pandas", "torch", "timm", "pillow", "opencv-python-headless", "scikit-learn", "scipy", "onnxruntime", "faiss-cpu")


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


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """Knows every benchmark, and the options of the one that `words` begin with: only its module is imported."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.bench", description="Measure speed, as ratios of things that are run by turns.",
        epilog="example: python -m eval.bench inference --submission submission.zip --json bench.json")
    benchmarks = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK", dest="benchmark")
    for name, (_, line) in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=line)
        if [name] == words[:1]:
            benchmark.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds, after one to warm up (default %(default)s)")
            benchmark.add_argument("--json", type=Path, metavar="FILE", help="also write the object there")
            module_of(name).add(benchmark)
    return parser


def module_of(benchmark: str) -> ModuleType:
    return import_module(f"eval.benchmarks.{BENCHMARKS[benchmark][0]}")


def main() -> None:
    args = parser_of(sys.argv[1:]).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs and lies about is cleared away then, too
    load, benchmark = os.getloadavg()[0], module_of(args.benchmark)
    figures = benchmark.measured(args)
    benchmark.show(figures)
    result = {"benchmark": args.benchmark, **figures, "load_before": load, **surroundings()}
    if load > os.cpu_count() / 2:
        print(f"warning: {load:.1f} other processes wanted the {os.cpu_count()} cores; that spreads the seconds", file=sys.stderr)
    if args.json:
        write_json(result, args.json)
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    run(main)
