"""Many processes, one catalogue: each takes a shard that is not there and that nobody is at, then the next one, until none is left.

    python -m solution.embed --data DATA --weights WEIGHTS --output EMBEDDINGS --shards 64      # on as many machines as you like
    torchrun --nproc-per-node 4 -m solution.embed --data DATA --weights WEIGHTS --output EMBEDDINGS

Writes EMBEDDINGS/MODEL.i-of-n.npz. A lock says that somebody is at a shard; the system drops it with its process, however that ends. What is
there and was made of the same photographs is not made again: the same command goes on, and when all is there it says so at once.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Dict, List

import pandas as pd

from solution import ranks, recipe, shards
from solution.embed import Work, file_of
from solution.errors import Busy
from solution.files import InputError, alone, check_room
from solution.shards import Shard, Source


def embed(args: argparse.Namespace) -> None:
    """Makes the one shard that is asked for, or of all those that are free."""
    several = not args.shard
    if args.timings:
        raise InputError("--timings: tells of one whole embedding; leave it away where there are shards")
    if args.shard and ranks.world() > 1:
        raise InputError("--shard: torchrun's processes share out all shards; leave it away, or say how many with --shards N")
    count = args.shard.count if args.shard else args.shards or ranks.world()
    turns = Turns(Work(recipe.specs(args.weights), args), count)
    made = [shard for shard in (turns.order() if several else [args.shard]) if turns.taken(shard, several)]
    print(turns.told(made))


class Turns:
    def __init__(self, work: Work, count: int) -> None:
        self.work, self.count, self.output = work, count, work.args.output
        self.weights = {spec.name: digest_of_model(spec, work.args.weights, work.kind) for spec in work.specs}
        self.data = digest_of_table(work.table)
        self.refuse_others()
        check_room(self.files(Shard(1, count))[0])

    def order(self) -> List[Shard]:
        """All shards: first those that are this process's own among torchrun's, then those that another one may not come to."""
        numbers = sorted(range(self.count), key=lambda number: number % ranks.world() != ranks.rank())
        return [Shard(number + 1, self.count) for number in numbers]

    def taken(self, shard: Shard, several: bool) -> bool:
        """Whether this process has made the shard; Busy where another one is at it, unless there are several to choose from."""
        if not self.lacking(shard):
            return False
        try:
            with alone(*self.files(shard)):
                specs = self.lacking(shard)  # another one may have made it just now
                if specs:
                    self.work.write(specs, shard, self.sources(shard))
        except Busy:
            if not several:
                raise
            return False
        return bool(specs)

    def files(self, shard: Shard) -> List[Path]:
        return [file_of(spec, self.output, shard) for spec in self.work.specs]

    def lacking(self, shard: Shard) -> List[recipe.Spec]:
        """The models whose file of the shard is not there, or is of photographs that have changed since."""
        made = dict(zip(self.work.specs, self.files(shard)))
        if not any(file.is_file() for file in made.values()):
            return list(made)  # without a look at the photographs
        sources = self.sources(shard)
        return [spec for spec, file in made.items() if not file.is_file() or shards.source(file) != sources[spec.name]]

    def sources(self, shard: Shard) -> Dict[str, Source]:
        photographs = digest_of_photographs(self.work.of(shard))
        return {name: Source(weights, self.data, photographs) for name, weights in self.weights.items()}

    def refuse_others(self) -> None:
        """InputError where the output holds what would not go with the shards to be made."""
        here = shards.there(self.output)
        for model in self.weights:
            for part, path in here.get(model, {}).items():
                if part.count != self.count:
                    raise InputError(f"{path}: is {f'a shard of {part.count}' if part.count else 'a whole'}, and shards of {self.count} are asked for; remove it, or choose another --output")
                other = shards.differs(shards.source(path), Source(self.weights[model], self.data, ""))
                if other:
                    raise InputError(f"{path}: was made of other {other}, and shards of both would be mixed; remove it, or choose another --output")

    def told(self, made: List[Shard]) -> str:
        """What this process has done, and whether anything is missing."""
        missing = [shard for shard in self.order() if not all(file.is_file() for file in self.files(shard))]
        done = sum(len(self.work.of(shard)) for shard in made)
        state = f"all {self.count} shards are there" if not missing else (
            f"{len(missing)} of {self.count} shards are missing, {missing[0].number}/{self.count} first; where nobody is at them --shards {self.count} makes them")
        return f"{self.output}: {done} photographs embedded by {len(self.work.specs)} models, {self.work.complaints.count} warnings; {state}"


# Of what a shard is made

def digest_of_model(spec: recipe.Spec, weights: Path, kind: str) -> str:
    """Engines other than that of 8 bits agree to 1e-4: shards of a CPU go with those of a GPU."""
    eight_bit = [weights / f"{spec.name}.8bit.json"] if kind == "onnx8" else []
    looks = json.dumps([recipe.plain(spec.model), spec.test_size, spec.predict.mirror == "off", kind == "onnx8"], sort_keys=True)
    return digest(looks.encode(), *(path.read_bytes() for path in [weights / f"{spec.name}.npz", *eight_bit] if path.is_file()))


def digest_of_table(table: pd.DataFrame) -> str:
    columns = [table[name] for name in ("image_id", "x0", "y0", "x1", "y1") if name in table]
    return digest("\n".join(map("\t".join, zip(*columns))).encode())


def digest_of_photographs(table: pd.DataFrame) -> str:
    sizes = [str(os.path.getsize(path)) if os.path.isfile(path) else "" for path in table.path]
    return digest("\n".join(map("\t".join, zip(table.image_id, sizes))).encode())


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
