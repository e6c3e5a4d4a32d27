"""Images + weights -> embeddings: every photograph is opened once for the whole ensemble.

    python -m solution.embed --data DATA --weights WEIGHTS --output EMBEDDINGS

Reads the photographs of DATA/metadata.csv and the models of WEIGHTS. Writes EMBEDDINGS/MODEL.npz (image_id, plain and mirror
(n, width) float32) and the model's spec beside it as MODEL.json, and rank.json where WEIGHTS has one; with --shard i/n
MODEL.i-of-n.npz of every n-th photograph, which solution.rank joins, and with --shards n those of all n that are not there yet and that
no other process is at (docs/machines.md). What was computed before is taken from the cache, unless --no-cache. A photograph that
cannot be read is told and gets rows of zeros, which are like nothing; --strict stops there.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import engines, images, recipe, shards
from solution.deadline import Deadline
from solution.device import chosen, decoders
from solution.files import STRICT, Complaints, InputError, alone, check_room, natural, progress, run, write_arrays, write_json
from solution.fusion import Embeddings
from solution.images import View
from solution.known import Known
from solution.pixels import Pixels, Stopwatch
from solution.shortage import told


def view_of(spec: recipe.Spec) -> View:
    return View(spec.test_size, spec.model.box_margin)


def views(specs: List[recipe.Spec]) -> List[View]:
    return sorted({view_of(spec) for spec in specs})


Pass = Tuple[recipe.Spec, Tuple[str, ...]]  # a model over all images, over all mirror images, or over both: "plain", "mirror"


def sides(spec: recipe.Spec) -> Tuple[str, ...]:
    return ("plain",) if spec.predict.mirror == "off" else ("plain", "mirror")


def passes(specs: List[recipe.Spec], joint: bool = False) -> List[Pass]:
    """Every model over the images first, then over the mirror images, which add less; or `joint`, model by model, over both at once."""
    if joint:
        return [(spec, sides(spec)) for spec in specs]
    return [(spec, (side,)) for side in ("plain", "mirror") for spec in specs if side in sides(spec)]


class Engines:
    """The engines of a directory of weights, each made when it is first asked for; `kind` as `engines.chosen` has it."""

    def __init__(self, weights: Path, device: str, kind: str = "torch", complaints: Complaints = STRICT) -> None:
        self.weights, self.device, self.kind, self.complaints, self.loaded = weights, device, kind, complaints, {}
        self.loading = Stopwatch()

    def __call__(self, spec: recipe.Spec):
        if spec.name not in self.loaded:
            with self.loading:
                self.loaded[spec.name] = engines.made(spec, self.weights, self.device, self.kind, self.complaints)
        return self.loaded[spec.name]


class Embedder:
    """Photographs through one model after the other; what is `known` from before is not computed again.

    `seconds` are those of the models in each pass that got in, by model and side: a pass over both sides is shared out evenly.
    `forward` has those of broken passes too. `cached` is the number of embeddings that were not computed.
    """

    def __init__(self, pixels: Pixels, engine_of, known: Optional[Known] = None) -> None:
        self.pixels, self.engine_of, self.known = pixels, engine_of, known
        self.seconds: Dict[str, Dict[str, float]] = {}
        self.forward, self.cached = Stopwatch(), 0

    def all(self, specs: List[recipe.Spec], image_ids: np.ndarray) -> Dict[str, Embeddings]:
        """The embeddings of all photographs by every model, by model name; those that are not finite are zero, which is told."""
        found = {spec.name: {"image_id": image_ids, **self.one(spec, sides, Deadline(None))} for spec, sides in passes(specs, joint=True)}
        for spec, side in ((spec, side) for spec in specs for side in sides(spec)):
            without_broken(found[spec.name][side], spec, side, Complaints(strict=False))
        return found

    def one(self, spec: recipe.Spec, sides: Tuple[str, ...], deadline: Deadline) -> Optional[Embeddings]:
        """The embeddings (n, width) of one pass, by side; None where, by its speed so far, it would not end in time."""
        found = {side: self.known.found(spec, side, self.pixels) if self.known else None for side in sides}
        missing = np.flatnonzero(sum(lacking(embeddings, self.pixels.count) for embeddings in found.values()))
        old, before = len(sides) * (self.pixels.count - len(missing)), self.forward.seconds
        if old:
            print(f"{spec.name}{' mirrored' * (sides == ('mirror',))}: {old} of {len(sides) * self.pixels.count} embeddings were kept from before", file=sys.stderr)
        if len(missing) or not old:
            computed = self.computed(spec, sides, missing, deadline)
            if computed is None:
                return None
            found = {side: laid_over(found[side], missing, computed[side]) for side in sides}
            for side in sides if self.known and self.same_kind(spec) else ():
                self.keep(spec, side, found[side])
        self.cached += old
        unreadable = [row for row, digest in enumerate(self.pixels.digests) if digest == b""]
        for side in sides:
            found[side][unreadable] = 0
            self.seconds.setdefault(spec.name, {})[f"{side}_seconds"] = (self.forward.seconds - before) / len(sides)
        return found

    def keep(self, spec: recipe.Spec, side: str, embeddings: np.ndarray) -> None:
        try:
            self.known.keep(spec, side, self.pixels, embeddings)
        except MemoryError as error:
            print(f"warning: {spec.name}: nothing is kept for the next time: {told(error)}", file=sys.stderr)

    def computed(self, spec: recipe.Spec, sides: Tuple[str, ...], rows: np.ndarray, deadline: Deadline) -> Optional[Embeddings]:
        """The embeddings (len(rows), width) of some photographs, by side; None as for `one`.

        The first batch tells no speed: threads start, a device warms up.
        """
        engine, start, done = self.engine_of(spec), 0.0, 0
        result = {side: np.empty((len(rows), engine.width), np.float32) for side in sides}
        steps = self.pixels.steps(len(rows))
        label = f"{spec.name}{' mirrored' * (sides == ('mirror',))}"
        for step, (batch, photographs) in enumerate(progress(self.pixels.batches(view_of(spec), rows), label, steps), 1):
            with self.forward:
                parts = run_through(engine, photographs, sides)
            for side, part in zip(sides, parts):
                result[side][done : done + len(batch)] = part
            done += len(batch)
            if step == 1:
                start = deadline.clock()
            elif not deadline.fits((deadline.clock() - start) / (step - 1) * (steps - step)):
                return None
        return result

    def same_kind(self, spec: recipe.Spec) -> bool:
        """Whether the engine is of the kind that was asked for: PyTorch may have stepped in."""
        return getattr(self.engine_of(spec), "kind", self.known.kind) == self.known.kind

    def timings(self) -> dict:
        """`forward_seconds` of the models, `load_seconds` for weights, `decode_seconds` that this process waited for photographs; `cached`
        embeddings took no seconds."""
        return {"images": self.pixels.count, "cached": self.cached, "load_seconds": self.engine_of.loading.seconds, "decode_seconds": self.pixels.waiting.seconds,
                "forward_seconds": self.forward.seconds, "models": self.seconds}


def lacking(embeddings: Optional[np.ndarray], count: int) -> np.ndarray:
    """Which of `count` rows are to be computed, (count,)."""
    return np.ones(count, bool) if embeddings is None else np.isnan(embeddings[:, 0])


def laid_over(embeddings: Optional[np.ndarray], rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The embeddings with `new` ones in some rows; those alone where they are all."""
    if embeddings is None or len(rows) == len(embeddings):
        return new
    embeddings[rows] = new
    return embeddings


def without_broken(embeddings: np.ndarray, spec: recipe.Spec, side: str, complaints: Complaints) -> None:
    """Makes rows (n, width) of a model's side that are not finite zero, and complains of them."""
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        name = spec.name + ", mirror images" * (side == "mirror")
        complaints.add(f"{name}: {broken.sum()} of {len(broken)} embeddings are not finite; they are ranked as like nothing")
        embeddings[broken] = 0


def run_through(engine, photographs: np.ndarray, sides: Tuple[str, ...]) -> Iterable[np.ndarray]:
    """The embeddings (b, width) of each side; of both by the same batches where the engine can."""
    if len(sides) == 2 and hasattr(engine, "both"):
        return engine.both(photographs)
    return [engine(photographs, side == "mirror") for side in sides]


def embed(pixels: Pixels, specs: List[recipe.Spec], engine_of, image_ids: np.ndarray, known: Optional[Known] = None) -> Dict[str, Embeddings]:
    """The embeddings of all photographs by every model, by model name."""
    return Embedder(pixels, engine_of, known).all(specs, image_ids)


def file_of(spec: recipe.Spec, output: Path, shard: Optional[shards.Shard]) -> Path:
    return output / f"{shard.of(spec.name) if shard else spec.name}.npz"


def save(embeddings: Dict[str, Embeddings], specs: List[recipe.Spec], output: Path, shard: Optional[shards.Shard] = None, sources: Dict[str, shards.Source] = {}) -> Path:
    """Writes MODEL.npz, or that of a shard, and MODEL.json of each model; without mirror images `mirror` is zeros. A shard tells its source."""
    for spec in specs:
        arrays = {"mirror": np.zeros_like(embeddings[spec.name]["plain"]), **embeddings[spec.name]}
        write_json(recipe.plain(spec), output / f"{spec.name}.json")
        source = {"source": np.array(sources[spec.name])} if sources else {}
        write_arrays(file_of(spec, output, shard), **{name: arrays[name] for name in ("image_id", "plain", "mirror")}, **source)
    return output


def main() -> None:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(
        description="Embed the photographs of a data directory with every model of an ensemble.",
        epilog="example: python -m solution.embed --data runs/demo/folds/0/test --weights runs/demo/fold0/weights --output embeddings",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory with metadata.csv")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="directory for MODEL.npz")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--shard", type=shards.shard, metavar="I/N", help="only every N-th photograph from the I-th on, to MODEL.I-of-N.npz; python -m solution.rank joins them")
    part.add_argument("--shards", type=shards.number, metavar="N", help="all N shards that are not there yet and that no other process is at; under torchrun by default as many as processes")
    parser.add_argument("--strict", action="store_true", help="stop at a photograph that cannot be read instead of passing over it")
    parser.add_argument("--timings", type=Path, help="JSON file for the seconds of each phase")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--engine", choices=["auto", *engines.KINDS], default="auto", help="what runs the models (default: onnx on a CPU where it is installed); onnx8: in 8 bits, see solution.quantize")
    parser.add_argument("--workers", type=natural, help="threads that decode (default: one a core, at most 8)")
    parser.add_argument("--no-cache", action="store_true", help="compute everything, and keep no embeddings for the next time")
    args = parser.parse_args()
    from solution import ranks, turns  # which are not packed

    with ranks.together("the same command goes on; shards that are there are not made again"):
        if args.shard or args.shards or ranks.world() > 1:
            turns.embed(args)
        else:
            embed_whole(args, started)


def embed_whole(args: argparse.Namespace, started: float) -> None:
    specs = recipe.specs(args.weights)
    with alone(*(file_of(spec, args.output, None) for spec in specs)):
        for path in filter(None, (file_of(specs[0], args.output, None), args.timings)):
            check_room(path)
        work = Work(specs, args)
        embedder = work.write(specs)
        if args.timings:
            write_json({"embed_seconds": time.perf_counter() - started, **embedder.timings()}, args.timings)
    print(f"{args.output}: {len(work.table)} photographs embedded by {len(specs)} models, {work.complaints.count} warnings")


class Work:
    """The photographs and the models that the arguments name."""

    def __init__(self, specs: List[recipe.Spec], args: argparse.Namespace) -> None:
        self.specs, self.args, self.complaints = specs, args, Complaints(args.strict)
        self.table = images.listed(args.data, self.complaints).reset_index(drop=True)
        device = chosen(args.device)
        self.kind = engines.chosen(args.engine, device)
        self.engine_of = Engines(args.weights, device, self.kind)
        self.known = None if args.no_cache else Known(args.weights, device, self.kind)
        self.workers = decoders() if args.workers is None else args.workers

    def of(self, shard: Optional[shards.Shard]) -> pd.DataFrame:
        return self.table.iloc[shard.rows()].reset_index(drop=True) if shard else self.table

    def write(self, specs: List[recipe.Spec], shard: Optional[shards.Shard] = None, sources: Dict[str, shards.Source] = {}) -> Embedder:
        """Embeds all photographs or a shard by some of the models: what ran these. InputError where none could be read."""
        table = self.of(shard)
        photographs = Pixels(table, self.args.data, views(specs), self.workers, self.complaints)
        embedder = Embedder(photographs, self.engine_of, self.known)
        recipe.write_rank(recipe.read_rank(self.args.weights), self.args.output)
        for spec in specs:  # each is on the disk before the next one begins
            embeddings = embedder.all([spec], table.image_id.to_numpy(str))
            if len(photographs.told) == len(table) > 0:
                raise InputError(f"{self.args.data}: none of {len(table)} photographs could be read; is their disk there?")
            save(embeddings, [spec], self.args.output, shard, sources)
        return embedder


if __name__ == "__main__":
    run(main, relief="lower --workers, or embed in parts with --shards")
