"""What the importers' tests share: tiny photographs, tables written by hand, the command, and what it made.

    import toy_sightings as toy
    toy.photographs(tmp_path / "photographs", "ANNA/1.jpg", "BEA/2.png")      # 8 x 6 pixels each, all different
    made = toy.imported("folders", tmp_path / "photographs")                 # tmp_path / "data", made by the command
    assert toy.lines(made) == ["image_id,path,whale_id", ...]
"""

import subprocess
import sys
import zlib
from pathlib import Path

from PIL import Image

from eval import importers

ROOT = Path(__file__).parents[1]


def photographs(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), zlib.crc32(name.encode()) & 0xFFFFFF).save(folder / name, "PNG" if name.lower().endswith("png") else "JPEG")
    return folder


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def imported(monkeypatch, name: str, source: Path | str, *options: object, output: Path) -> Path:
    """Runs the command in this process; its errors come as InputError."""
    monkeypatch.setattr(sys, "argv", ["importers", name, str(source), "--output", str(output), *map(str, options)])
    importers.main()
    return output


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "eval.importers", *map(str, arguments)]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env={"PATH": "", "PYTHONPATH": str(ROOT), **environment})


def lines(data: Path, file: str = "metadata.csv") -> list[str]:
    return (data / file).read_text(encoding="utf-8").splitlines()
