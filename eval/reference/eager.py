"""The reference's network alone, on photographs that are decoded before: rounds of eager PyTorch, as slow and as fast as it gets.

    with Worker("eval.reference.eager", data, weights, 64, 32, "nchw") as eager:       # 64 photographs, 32 at a time
        eager.about, eager()       # floating-point operations an image; the seconds of a round over all mirror images

Of several models the last one runs. Which pages the allocator keeps is its environment's to say (eval.benchmarks.forward). A sixth
word names a file for the embeddings (n, d) of the photographs.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eval.benchmarks.workers import serve
from eval.files import read_table, run
from eval.reference.network import Network, Photographs, loaded
from eval.reference.predict import read_specs

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def prepared(data: Path, spec: dict, count: int) -> torch.Tensor:
    """The first photographs of DATA as the network takes them, (count, 3, size, size)."""
    table = read_table(data / "metadata.csv", ["path"])[:count]
    photographs = Photographs(table.assign(path=[str(data / path) for path in table.path]), spec)
    return torch.from_numpy(np.stack([photographs[number] for number in range(len(table))]))


def flop(network: Network, image: torch.Tensor) -> int:
    """Floating-point operations of the convolutions and linear layers for `image` (1, 3, size, size): two a multiply-add."""
    counted = []

    def count(layer: nn.Module, _, made: torch.Tensor) -> None:
        counted.append(2 * made.numel() * layer.weight[0].numel())  # a row of weights for each number that is made

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    network(image)
    for hook in hooks:
        hook.remove()
    return sum(counted)


def main(data: str, weights: str, count: str, batch: str, layout: str, embeddings: str = "") -> None:
    spec = read_specs(Path(weights))[-1]
    images = prepared(Path(data), spec, int(count))
    network = loaded(spec, Path(weights)).to(memory_format=LAYOUTS[layout])
    over = lambda images: [network(part) for part in images.to(memory_format=LAYOUTS[layout]).split(int(batch))]

    def timed() -> float:
        start = time.perf_counter()
        over(mirrored)
        return time.perf_counter() - start

    with torch.no_grad():
        mirrored = images.flip(3).to(memory_format=LAYOUTS[layout])
        if embeddings:
            np.save(embeddings, torch.cat(over(images)).numpy())
        serve({"flop_per_image": flop(network, images[:1]), "images": len(images)}, timed)


if __name__ == "__main__":
    run(lambda: main(*sys.argv[1:]))
