"""What `eval.bench inference` runs where no zip is named: an untrained ensemble, and the reference on the weights of a submission.

    untrained(folder)                                    # FOLDER/lites.zip, as submission.pack writes it, of FOLDER/weights
    reference(submission, folder / "reference.zip")      # the same weights, run by eval.reference instead

Nothing is trained: what a model has learnt does not change how long it takes.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

from eval.benchmarks.workers import command
from eval.files import InputError, write_json, write_table
from submission import archive

# The figure to beat (three small models, mirror images too) was measured with these.
LITES = {
    "shared": {"model": {"pretrained": "embedded", "mean": [0.5] * 3, "std": [0.5] * 3}, "train": {"epochs": 0}},
    "models": {f"lite{number}_{size}": {"model": {"backbone": f"tf_efficientnet_lite{number}"}, "train": {"size": size}}
               for number, size in enumerate((224, 240, 260))},
}
EMBEDDED = [f"tf_efficientnet_lite{number}" for number in range(3)]  # whose weights come with packages
ROOT = Path(__file__).parents[2]
CODE = ("__init__", "errors", "files", "labels", "locks", "metrics", "outputs", "rules", "shortage", "tables",
        "reference/__init__", "reference/predict", "reference/network", "reference/ranking")
MAIN = '''from eval.files import run
from eval.reference.predict import main

if __name__ == "__main__":
    run(lambda: main(["--data", "data", "--weights", "weights", "--output", "submission/submission.csv",
                      "--timings", "submission/timings.json"]))
'''


def untrained(folder: Path) -> Path:
    """Three EfficientNet-Lites as ImageNet left them. Training asks for labelled photographs, though it learns nothing: any will do."""
    print("no --submission: packing three untrained EfficientNet-Lites", file=sys.stderr)
    command("submission.pack", "--weights", untrained_weights(LITES, folder), "--output", folder / "lites.zip")
    return folder / "lites.zip"


def alone(backbone: str, size: int) -> dict:
    """The recipe of one untrained model called `model`, random where no package carries its weights."""
    model = {"backbone": backbone, "pretrained": "embedded" if backbone in EMBEDDED else "none"}
    return {"models": {"model": {"model": model, "train": {"epochs": 0, "size": size}}}}


def untrained_weights(recipe: dict, folder: Path) -> Path:
    """FOLDER/weights with the models of a recipe of 0 epochs."""
    words = ["--recipe", write_json(recipe, folder / "recipe.yaml"), "--data", squares(folder / "squares")]  # JSON is YAML
    command("solution.train", *words, "--output", folder / "weights")
    return folder / "weights"


def squares(data: Path) -> Path:
    """A grey and a white photograph, of two whales."""
    from PIL import Image

    table = pd.DataFrame({"image_id": ["grey", "white"], "path": ["images/grey.png", "images/white.png"], "whale_id": ["grey", "white"]})
    write_table(table, data / "metadata.csv")
    (data / "images").mkdir()
    for colour, path in zip(table.image_id, table.path):
        Image.new("RGB", (8, 8), colour).save(data / path)
    return data


def reference(submission: Path, path: Path) -> Path:
    """A zip of the submission's weights and the reference's code; InputError where it has none."""
    names = [name for name in archive.names(submission) if name.startswith("weights/") and not name.endswith("/")]
    if not any(name.endswith(".npz") for name in names):
        raise InputError(f"{submission}: no weights/MODEL.npz in it that the reference could run; "
                         "give a zip of submission.pack, or another --compare")
    code = [f"eval/{name}.py" for name in CODE]
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        folder = archive.unpacked(submission, Path(place) / "unpacked")
        for name in code:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        (folder / "main.py").write_text(MAIN)
        return archive.zipped(folder, [*names, *code, "main.py"], path)
