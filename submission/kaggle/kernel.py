"""The script of a Kaggle kernel: finds what was packed and the data among its inputs, and writes /kaggle/working/submission.csv.

    python kernel.py

The data are a data directory in the project's layout, with scenarios or without, else a competition's own sample_submission.csv and
test photographs, whole, as that folder holds no boxes: for weights trained on boxes attach the DATA/test of eval.importers. The
internet is off: wheels that travel with the weights are installed from there. KAGGLE_INPUT and KAGGLE_WORKING replace the two folders
elsewhere than on Kaggle.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INPUT = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("KAGGLE_WORKING", "/kaggle/working"))
LAYOUTS = ("metadata.csv", "query_scenarios.csv"), ("metadata.csv",)
RAW = ("sample_submission.csv", "test"), ("sample_submission.csv", "test_images")


def holder(*choices):
    """The folder below the inputs that holds all names of a choice: for the first choice that any does, the first in the order of the alphabet."""
    for names in choices:
        for folder, folders, files in os.walk(INPUT):
            folders.sort()
            if set(names) <= {*folders, *files}:
                return Path(folder), names
    sys.exit(f"error: {INPUT}: no folder holds {', or '.join(' and '.join(names) for names in choices)}; attach the dataset to the kernel")


def laid_out(folder: Path, photographs: str) -> Path:
    """A competition's own folder as a data directory. Copies, since the inputs are read-only and no path may lead out of the directory."""
    data = Path(tempfile.mkdtemp())
    shutil.copytree(folder / photographs, data / "images")
    with open(folder / "sample_submission.csv", newline="", encoding="utf-8-sig") as asked, open(data / "metadata.csv", "w", newline="") as file:
        rows = [[Path(name).stem, f"images/{name}"] for name, *_ in list(csv.reader(asked))[1:]]
        csv.writer(file).writerows([["image_id", "path"], *rows])
    return data


packed, _ = holder(("main.py", "manifest.json"))
data, found = holder(*LAYOUTS, *RAW)
wheels = sorted(map(str, packed.glob("wheels/*.whl")))
if wheels:
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", *wheels], check=True)
sys.path.insert(0, str(packed))
from main import start  # noqa: E402 - packed beside the weights

start(laid_out(data, found[1]) if found in RAW else data, WORKING / "submission.csv")
