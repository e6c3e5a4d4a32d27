"""The Python that a rehearsal runs in: the project's own, or one with the organisers' versions, made once and kept.

    python_of("drivendata")       # ~/.cache/whale-ranking/drivendata-<hash of the pins>/bin/python

Making it takes about 90 s, 2 GB, a package index and a Python 3.9 (`python3.9` on the PATH, or one of pyenv's).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

from eval.files import InputError, whole_directory
from submission import cache

# The organisers' runtime. torchvision and timm without what they ask for: their torch would be another.
PINS = ("torch==1.8.0", "numpy==1.20.3", "pandas==1.2.5", "opencv-python-headless==4.5.2.54", "scikit-learn==0.24.2",
        "tqdm==4.62.0", "loguru==0.5.3", "pillow==8.2.0", "scipy==1.7.1")
PINS_ALONE = ("torchvision==0.9.1", "timm==0.5.4")
VERSIONS = "import platform as p; from importlib.metadata import version as v; print(f'Python {p.python_version()}, torch {v(\"torch\")}, timm {v(\"timm\")}')"


def python_of(runtime: str) -> Path:
    """The interpreter of a runtime; InputError where `drivendata` is not made yet and there is no Python 3.9 to make it with."""
    if runtime == "current":
        return Path(sys.executable)
    pins = hashlib.sha256(" ".join(PINS + PINS_ALONE).encode()).hexdigest()[:12]
    home = cache.place(f"drivendata-{pins}")
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two rehearsals at once make it once
        if not home.is_dir():
            make(home)
        if home.stat().st_uid != os.geteuid():
            raise InputError(f"{home}: belongs to another user, whose programs are not run; remove it, or use --runtime current")
    return home / "bin" / "python"


def make(home: Path) -> None:
    base = python39()
    if base is None:
        raise InputError("--runtime drivendata: no Python 3.9 found (python3.9 on the PATH, pyenv versions); install one, or use --runtime current")
    print(f"{home}: making the organisers' environment (once; about 90 s, 2 GB)", file=sys.stderr)
    with whole_directory(home) as beside:
        told([base, "-m", "venv", beside])
        pip = [beside / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        told([*pip, *PINS])
        told([*pip, "--no-deps", *PINS_ALONE])


def told(command: List) -> None:
    """Runs a step; where it fails, one line that names it and its last words."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: the organisers' environment could not be made: {' '.join(map(str, command[1:5]))} ...: {(done.stderr.strip().splitlines() or ['no words'])[-1]}")


def python39() -> Optional[str]:
    """A Python 3.9 that runs: pyenv's stand-in on the PATH may not."""
    candidates = [shutil.which("python3.9"), *pyenv_pythons()]
    works = [path for path in candidates if path and subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0]
    return works[0] if works else None


def pyenv_pythons() -> List[str]:
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    words = lambda *command: subprocess.run([pyenv, *command], capture_output=True, text=True).stdout.split()
    return [f"{root}/versions/{version}/bin/python3.9" for root in words("root") for version in words("versions", "--bare") if version.startswith("3.9")]


def versions(python: Path) -> str:
    done = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True)
    return done.stdout.strip() or "no torch or timm there"
