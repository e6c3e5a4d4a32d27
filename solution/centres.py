"""What a head with sub-centres has learned of each whale: the directions that its photographs' embeddings gather around.

WEIGHTS/centres/MODEL.npz      whale_id (c,), centres (parts, c, k, width) float32: k sub-centres a whale, for each part of the embedding

A training writes it, solution.doubts reads it, and it is never packed.
"""

from pathlib import Path
from typing import Optional

import numpy as np

from solution import recipe
from solution.files import InputError, arrays, write_arrays


def write(objective, whale_ids: np.ndarray, weights: Path, name: str) -> Optional[Path]:
    """The sub-centres of a trained `losses.Objective`; nothing where its heads have none. Of mirror images' own whales, which come
    after `whale_ids` (c,), none are kept."""
    heads = [head for head in objective.heads if hasattr(head, "sub_centres")]
    if not heads:
        return None
    parts = [head.weight.detach().cpu().numpy().reshape(-1, head.sub_centres, head.weight.shape[1]) for head in heads]
    return write_arrays(weights / "centres" / f"{name}.npz", whale_id=whale_ids.astype(str), centres=np.stack(parts)[:, : len(whale_ids)])


def read(weights: Path, spec: recipe.Spec) -> Optional[dict]:
    """`whale_id` and `centres` of a trained model; None where it has none. InputError where they are no sub-centres of its whales."""
    path = weights / "centres" / f"{spec.name}.npz"
    if spec.head.kind not in ("arcface", "cosface") or not spec.train.all_epochs or not path.is_file():
        return None
    found = arrays(path, ("whale_id", "centres"))
    whales, centres = found["whale_id"], found["centres"]
    if whales.ndim != 1 or whales.dtype.kind != "U" or len(np.unique(whales)) < len(whales) or centres.ndim != 4 or centres.dtype.kind != "f" or not centres.size:
        raise InputError(f"{path}: needs whale_id (c), each once, and centres (parts, c, k, width); train the model again")
    if centres.shape[:2] != (spec.model.parts, len(whales)) or not np.isfinite(centres).all():
        raise InputError(f"{path}: its centres are not those of {len(whales)} whales and {spec.model.parts} parts, or no finite numbers; train the model again")
    return found
