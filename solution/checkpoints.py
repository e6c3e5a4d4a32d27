"""Where the state of a training lies until its model is finished: WEIGHTS.resume/MODEL.npz, apart from what is shipped."""

import contextlib
from pathlib import Path

from solution import recipe

CHECKPOINT_SECONDS = 600.0  # that a kill costs at most, where an epoch, or what local evidence learns, takes longer


def place(weights: Path, spec: recipe.Spec) -> Path:
    weights = weights.resolve()  # `.` has no name
    return weights.with_name(weights.name + ".resume") / f"{spec.name}.npz"


def drop(checkpoint: Path) -> None:
    """The model is finished."""
    checkpoint.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it still holds checkpoints of other models, or was never made
        checkpoint.parent.rmdir()
