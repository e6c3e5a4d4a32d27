"""Which photographs are the same: byte for byte, or nearly so, as they are or as a mirror image.

Reads image files; writes nothing. A photograph's fingerprint is the difference hash of its box at 16 x 16: whether each of 256
squares is brighter than its left neighbour (package imagehash).

    prints = fingerprints(files, boxes, {})        2.5 s for 1,213 photographs of 416 pixels
    pairs = alike(prints)                          first, second, distance, mirrored, identical
"""

import hashlib
import io
import os
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.files import progress
from eval.reading import content, recognised, upright

SIDE = 16
# Of 256 bits. Measured on nyala's 1,213 photographs: written again as JPEG of quality 30, at half the size, or 25 % brighter they
# are 0 to 25 bits from themselves, cut by 4 % of their sides up to 49, by 8 % about 74. The nearest two of different
# encounters are 70 apart (84 with mirror images); drawn belugas, alike as they are, 55. The usual 8 x 8 hashes (difference,
# perceptual, wavelet, average) cannot tell a crop of 4 % from another animal; a 16 x 16 perceptual hash does so less well.
NEAR = 48
BLOCK = 2**22  # distances at a time; 32 MB


class Fingerprints(NamedTuple):
    """Of n photographs: `copy`, equal for the same bytes and box; hashes (n, 4) uint64; whether a file could not be read."""

    copy: np.ndarray
    plain: np.ndarray
    mirror: np.ndarray
    unreadable: np.ndarray


def fingerprints(files: list[str], boxes: np.ndarray, known: dict[bytes, np.ndarray | None]) -> Fingerprints:
    """`boxes`: (n, 4) x0, y0, x1, y1 in pixels, NaN for the whole photograph; `known` keeps what was decoded before."""
    keys = []
    for file, box in progress(list(zip(files, boxes)), "fingerprints"):
        found = _content(file)
        keys.append(hashlib.sha256(box.tobytes() + (os.fsencode(file) if found is None else found)).digest())
        if keys[-1] not in known:
            known[keys[-1]] = None if found is None else _hashes(found, box)
    # What cannot be read stands for its bytes, and where these cannot be had for its path: at distance 0 from its copies, far from anything else.
    itself = [np.tile(np.frombuffer(key, np.uint64), (2, 1)) for key in keys]
    hashes = [own if known[key] is None else known[key] for key, own in zip(keys, itself)]
    plain, mirror = np.array(hashes, np.uint64).reshape(-1, 2, SIDE * SIDE // 64).swapaxes(0, 1)
    unreadable = np.array([known[key] is None for key in keys], bool)
    return Fingerprints(pd.factorize(pd.Series(keys, dtype=object))[0], plain, mirror, unreadable)


def _content(file: str) -> bytes | None:
    try:
        return content(file)
    except (OSError, ValueError):
        return None


def _hashes(found: bytes, box: np.ndarray) -> np.ndarray | None:
    """(2, 4) uint64, the hash of the photograph and of its mirror image; None where it cannot be read."""
    import imagehash
    from PIL import ImageOps

    try:
        photograph = recognised(io.BytesIO(found))
        if np.isnan(box).any():
            photograph.draft("L", (256, 256))  # JPEG: at an eighth of the size an eighth of the time
        picture = upright(photograph).convert("RGB").convert("L")  # from LAB there is no shorter way
    except Exception:  # each decoder has its own kinds for damaged bytes
        return None
    x0, y0, x1, y1 = np.clip(box, 0, [*picture.size] * 2)
    cut = picture.crop((x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else picture
    bits = [imagehash.dhash(one, SIDE).hash.ravel() for one in (cut, ImageOps.mirror(cut))]
    return np.packbits(bits, axis=1).view(np.uint64)


def alike(prints: Fingerprints) -> pd.DataFrame:
    """All pairs first < second at most NEAR apart: `distance` in bits, whether of the `mirrored` one, whether `identical`."""
    n = len(prints.copy)
    starts = range(0, n, max(1, BLOCK // max(1, n)))
    found = [_alike(prints, start, start + starts.step) for start in progress(starts, "comparing")]
    columns = np.concatenate([*found, np.empty((0, 4), int)])
    pairs = pd.DataFrame(columns, columns=["first", "second", "distance", "mirrored"]).astype({"mirrored": bool})
    return pairs.assign(identical=prints.copy[pairs["first"]] == prints.copy[pairs["second"]])


def _alike(prints: Fingerprints, start: int, stop: int) -> np.ndarray:
    """The pairs (m, 4) whose first is in start..stop-1."""
    plain, mirror = (distances(hashes[start:stop], prints.plain[start:]) for hashes in (prints.plain, prints.mirror))
    distance = np.minimum(plain, mirror)
    first, second = np.nonzero(np.triu(distance <= NEAR, k=1))
    return np.column_stack([first + start, second + start, distance[first, second], (mirror < plain)[first, second]]).astype(int)


def distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of bits that differ, (n, m), between hashes (n, w) and others (m, w) of w uint64 each."""
    total = np.zeros((len(hashes), len(others)), np.uint16)
    for word in range(hashes.shape[1]):
        total += np.bitwise_count(hashes[:, None, word] ^ others[None, :, word])
    return total
