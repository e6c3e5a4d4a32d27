"""What the organisers run: checks that everything packed has arrived whole, then ranks data/ into submission/submission.csv.

    python main.py

Runs in the unpacked zip on plain Python 3.9. The time limit is SUBMISSION_TIME_LIMIT in seconds, else the manifest's own; it
counts from this line on. A file that is missing or damaged is one line and exit status 2. `timings.json` lies beside the output.
"""

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent


def stop(message: str) -> None:
    print(f"error: {' '.join(message.splitlines())[:1000]}", file=sys.stderr)
    sys.exit(2)


def manifest_of(folder: Path) -> dict:
    if not (folder / "manifest.json").is_file():
        stop("manifest.json: no such file; the submission is incomplete or damaged, pack it again")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        stop(f"manifest.json: {error}; the submission is incomplete or damaged, pack it again")
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        stop("manifest.json: not of format 1, which this main.py reads; pack the submission again")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(packed, dict) and {"size", "sha256"} <= set(packed) for packed in files.values()):
        stop("manifest.json: files is not a table of sizes and digests; pack the submission again")
    return manifest


def check(folder: Path, manifest: dict) -> None:
    """Stops where a file of the manifest is missing or has other bytes: all sizes first, which is quick."""
    for name, packed in manifest["files"].items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            stop(f"manifest.json: {name!r} leads out of the submission; pack it again")
        size = os.path.getsize(folder / name) if os.path.isfile(folder / name) else None
        if size != packed["size"]:
            stop(f"{name}: {'missing' if size is None else f'{size} bytes'}, packed with {packed['size']} bytes; the submission is incomplete or damaged, pack it again")
    for name, packed in manifest["files"].items():
        if sha256(folder / name) != packed["sha256"]:
            stop(f"{name}: its SHA-256 is not the packed one; the submission is damaged, pack it again")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def limit(manifest: dict) -> float:
    """Seconds for the whole run."""
    given = os.environ.get("SUBMISSION_TIME_LIMIT")
    source, text = ("SUBMISSION_TIME_LIMIT", given) if given else ("manifest.json: time_limit", str(manifest.get("time_limit"))[:100])
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        stop(f"{source} is {text!r}; it must be seconds above 0")
    return seconds


def start(data: Path, output: Path) -> None:
    """Ranks `data` into `output` with what lies beside this file."""
    manifest = manifest_of(HERE)
    seconds = limit(manifest)
    check(HERE, manifest)
    from solution import predict
    from solution.files import run

    options = {"--data": data, "--weights": HERE / "weights", "--output": output, "--timings": output.with_name("timings.json"), "--time-limit": seconds}
    os.environ["XDG_CACHE_HOME"] = str(HERE / "cache")  # whatever is kept for a next time stays in this folder
    run(lambda: predict.main([*(str(word) for option in options.items() for word in option), "--no-cache"], started=STARTED))
    sys.stdout.flush()
    os._exit(0)  # the file is written; torch takes seconds to tear down, which may be all that is left


if __name__ == "__main__":
    start(Path("data"), Path("submission/submission.csv"))
