"""Images + weights -> embeddings: every photograph is opened once for the whole ensemble.

    python -m solution.embed --data DATA --weights WEIGHTS --output EMBEDDINGS

Reads the photographs of DATA/metadata.csv and the models of WEIGHTS. Writes EMBEDDINGS/MODEL.npz (image_id, plain and mirror
(n, width) float32) and the model's spec beside it as MODEL.json.
"""

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import engines, images, recipe
from solution.deadline import Deadline
from solution.device import chosen, default_workers
from solution.files import STRICT, Complaints, natural, progress, run, write_arrays, write_json
from solution.images import View
from solution.rank import Embeddings

BATCH = 32  # images
HELD_BYTES = 8 << 30  # of resized photographs at most, and no more than half of the machine's memory


class Stopwatch:
    """The seconds spent in its `with` blocks, which do not lie in each other, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error) -> None:
        self.seconds += time.perf_counter() - self.start


class Pixels:
    """The photographs of `table` in each of several views, decoded once for all passes over them.

    The first pass decodes and keeps; a collection too large to keep is decoded again in every pass.
    """

    def __init__(self, table: pd.DataFrame, data: Path, views: List[View], workers: int, complaints: Complaints = STRICT) -> None:
        box = images.boxes(table, data, complaints)
        kind = images.Photographs if complaints.strict else images.Readable
        self.photographs, self.workers, self.complaints = kind(table.path, views, box), workers, complaints
        self.count, self.told = len(table), set()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.kept = len(table) * sum(view.size**2 * 3 for view in views) <= min(HELD_BYTES, memory // 2)
        self.decoding, self.decoded = iter(()), 0
        self.waiting = Stopwatch()  # for what processes decode beside the models, or for the decoding itself
        self.held = {view: np.empty((len(table) if self.kept else BATCH, view.size, view.size, 3), np.uint8) for view in views}

    def batches(self, view: View) -> Iterator[Tuple[slice, np.ndarray]]:
        """Rows and their images (n, size, size, 3) uint8, in order."""
        if not self.kept or self.decoded == 0:
            with self.waiting:
                self.decoding, self.decoded = self.decode(), 0
        for start in range(0, self.count, BATCH):
            rows = slice(start, min(start + BATCH, self.count))
            if self.decoded < rows.stop:
                with self.waiting:
                    self.decode_next(rows)
            yield rows, self.held[view][self.place(rows)]

    def place(self, rows: slice) -> slice:
        """Where the images of `rows` lie in `held`: at their own rows, or at the start where only one batch is held."""
        return rows if self.kept else slice(rows.stop - rows.start)

    def decode(self, first: int = 0) -> Iterator:
        from torch.utils.data import DataLoader, Subset

        batches = iter(DataLoader(Subset(self.photographs, range(first, self.count)), BATCH, num_workers=self.workers))
        if self.workers:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would tell of a death wherever the model then is
        return batches

    def next_batch(self, first: int):
        """The batch that begins with row `first`, though a process that decodes be killed, as where shared memory is short."""
        try:
            return next(self.decoding)
        except (RuntimeError, OSError, EOFError) as error:
            if self.complaints.strict or not self.workers:
                raise
            self.complaints.add(f"a process that decodes has died, decoding goes on in this one: {error}")
            self.workers = 0
            self.decoding = self.decode(first)
            return next(self.decoding)

    def decode_next(self, rows: slice) -> None:
        batch = self.next_batch(rows.start)
        arrays, problems = (batch, []) if self.complaints.strict else batch
        for number, problem in enumerate(problems, rows.start):
            if problem and number not in self.told and self.photographs.paths[number]:
                self.complaints.add(problem)
                self.told.add(number)
        for view, array in zip(self.photographs.views, arrays):
            self.held[view][self.place(rows)] = array
        self.decoded = rows.stop


def view_of(spec: recipe.Spec) -> View:
    return View(spec.test_size, spec.model.box_margin)


def views(specs: List[recipe.Spec]) -> List[View]:
    return sorted({view_of(spec) for spec in specs})


Pass = Tuple[recipe.Spec, bool]  # a model over all images, or over all mirror images


def passes(specs: List[recipe.Spec]) -> List[Pass]:
    """Every model over the images first, then over the mirror images, which add less."""
    return [(spec, False) for spec in specs] + [(spec, True) for spec in specs if spec.predict.mirror != "off"]


def embed_pass(engine, mirrored: bool, pixels: Pixels, deadline: Deadline, forward: Optional[Stopwatch] = None) -> Optional[np.ndarray]:
    """The embeddings (n, width) of one pass; None where, by its speed so far, it would not end in time.

    The first batch tells no speed: processes start, a device warms up. `forward` runs while the engine does.
    """
    forward = forward or Stopwatch()
    result, start = np.empty((pixels.count, engine.width), np.float32), 0.0
    steps = -(-pixels.count // BATCH)
    label = f"{engine.spec.name}{' mirrored' if mirrored else ''}"
    for step, (rows, batch) in enumerate(progress(pixels.batches(view_of(engine.spec)), label, steps), 1):
        with forward:
            result[rows] = engine(batch, mirrored)
        if step == 1:
            start = time.monotonic()
        elif not deadline.fits((time.monotonic() - start) / (step - 1) * (steps - step)):
            return None
    return result


class Engines:
    """The engines of a directory of weights, each made when it is first asked for; `kind` as `engines.chosen` has it."""

    def __init__(self, weights: Path, device: str, kind: str = "torch") -> None:
        self.weights, self.device, self.kind, self.loaded = weights, device, kind, {}
        self.loading = Stopwatch()

    def __call__(self, spec: recipe.Spec):
        if spec.name not in self.loaded:
            with self.loading:
                self.loaded[spec.name] = engines.made(spec, self.weights, self.device, self.kind)
        return self.loaded[spec.name]


def embed(pixels: Pixels, specs: List[recipe.Spec], engine_of, image_ids: np.ndarray) -> Dict[str, Embeddings]:
    """The embeddings of all photographs by every model, by model name."""
    embeddings: Dict[str, Embeddings] = {spec.name: {"image_id": image_ids} for spec in specs}
    for spec, mirrored in passes(specs):
        embeddings[spec.name]["mirror" if mirrored else "plain"] = embed_pass(engine_of(spec), mirrored, pixels, Deadline(None))
    return embeddings


def save(embeddings: Dict[str, Embeddings], specs: List[recipe.Spec], output: Path) -> Path:
    """Writes MODEL.npz and MODEL.json of each model; without mirror images `mirror` is zeros."""
    for spec in specs:
        arrays = {"mirror": np.zeros_like(embeddings[spec.name]["plain"]), **embeddings[spec.name]}
        write_json(recipe.plain(spec), output / f"{spec.name}.json")
        write_arrays(output / f"{spec.name}.npz", **{name: arrays[name] for name in ("image_id", "plain", "mirror")})
    return output


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Embed the photographs of a data directory with every model of an ensemble.",
        epilog="example: python -m solution.embed --data runs/demo/folds/0/test --weights runs/demo/fold0/weights --output embeddings",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory with metadata.csv")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="directory for MODEL.npz")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--engine", choices=["auto", "torch", "onnx"], default="auto", help="what runs the models (default: onnx on a CPU where it is installed)")
    parser.add_argument("--workers", type=natural, help="processes that decode (default: by device)")
    args = parser.parse_args()
    specs, table = recipe.specs(args.weights), images.listed(args.data)
    device = chosen(args.device)
    kind = engines.chosen(args.engine, device)
    workers = default_workers(device) if args.workers is None else args.workers
    pixels = Pixels(table, args.data, views(specs), workers)
    save(embed(pixels, specs, Engines(args.weights, device, kind), table.image_id.to_numpy(str)), specs, args.output)
    print(f"{args.output}: {len(table)} photographs embedded by {len(specs)} models")


if __name__ == "__main__":
    run(main)
