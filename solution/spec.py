"""What one model of an ensemble is, complete: every option, its default, and the values it may have.

The defaults are the published system of Where's Whale-do? (second prize). A value that is out of bounds is a ValueError that names its key.
"""

import dataclasses
import reprlib
from dataclasses import dataclass
from typing import Any, Optional, Tuple

MOST_NUMBERS, MOST_EPOCHS = 65_536, 100_000  # numbers of an embedding and images of a batch
SHOWN = reprlib.Repr()  # of a value that may be anything: a few of its parts, to some depth
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 200


def require(condition: bool, key: str, value: Any, wanted: str) -> None:
    if not condition:
        raise ValueError(f"{key} is {SHOWN.repr(value)}; it must be {wanted}")


def heading(text: str) -> bool:
    """Whether it may stand in a submission as a column's name or an individual's."""
    return 0 < len(text) <= 100 and text.isprintable()


@dataclass(frozen=True)
class Model:
    """Image -> backbone -> parts of pooling and neck."""

    backbone: str
    pretrained: str = "hub"  # hub (timm's), embedded (a PyPI package), none (random), or the path of a state dict
    stages: Tuple[int, ...] = (3, 4)  # feature maps pooled and concatenated: mostly 3 has stride 16, 4 has stride 32 (VGG: 4 and 5)
    gem_p: float = 3.0
    parts: int = 1  # of the embedding, each with a pooling and a neck of its own
    cut: str = "stripes"  # what a part sees: stripes (its share of the map's width) or branches (the whole map)
    part_width: Optional[int] = None  # numbers of a part, by BN -> dropout -> linear -> CELU -> BN; null: what is pooled, by BN alone
    dropout: float = 0.3  # before that linear layer
    box_margin: float = 0.0  # every side of a box is moved out by this share of its width or height
    grey: bool = False  # the luminance as three equal channels
    mean: Tuple[float, ...] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: Tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        require(len(set(self.stages)) == len(self.stages) > 0 and set(self.stages) <= set(range(6)), "model.stages", list(self.stages), "some of 0 to 5, each once")
        require(0 < self.gem_p <= 6, "model.gem_p", self.gem_p, "above 0 and at most 6 (float32 ends there)")
        require(1 <= self.parts <= 256, "model.parts", self.parts, "at least 1 and at most 256")
        require(self.cut in ("stripes", "branches"), "model.cut", self.cut, "stripes or branches")
        require(self.part_width is None or self.part_width >= 1, "model.part_width", self.part_width, "at least 1, or null")
        require(self.parts * (self.part_width or 1) <= MOST_NUMBERS, "model.part_width", self.part_width, f"at most {MOST_NUMBERS} / model.parts, {self.parts}")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 or more and below 1")
        require(0 <= self.box_margin <= 1, "model.box_margin", self.box_margin, "between 0 and 1")
        require(len(self.mean) == 3, "model.mean", list(self.mean), "three numbers")
        require(len(self.std) == 3 and min(self.std) > 0, "model.std", list(self.std), "three numbers above 0")


@dataclass(frozen=True)
class Head:
    """What each part of the embedding is trained against; margins are m(n) = margin_scale * n ** margin_power + margin_offset."""

    kind: str = "arcface"  # arcface, cosface (both with sub-centres), linear or lgm; see heads.py
    sub_centres: int = 2
    scale: float = 21.0
    margin_scale: float = 0.5
    margin_power: float = -0.125
    margin_offset: float = 0.05
    dropout: float = 0.0  # before a linear classifier
    total: bool = False  # a linear classifier of the whole embedding, detached, besides: the one that identification asks
    loss: str = "cross_entropy"  # cross_entropy, focal or bce; see losses.py
    ring: float = 0.0  # weight of the ring loss of each part
    ring_radius: float = 1.5  # where its learned radius starts
    centre: float = 0.0  # weight of the centre loss of each part
    species: bool = False  # a linear classifier of the species on the whole embedding, besides

    def __post_init__(self) -> None:
        require(self.kind in ("arcface", "cosface", "linear", "lgm"), "head.kind", self.kind, "arcface, cosface, linear or lgm")
        require(1 <= self.sub_centres <= 100, "head.sub_centres", self.sub_centres, "at least 1 and at most 100")
        require(self.scale > 0, "head.scale", self.scale, "above 0")
        require(0 <= self.dropout < 1, "head.dropout", self.dropout, "0 or more and below 1")
        require(self.loss in ("cross_entropy", "focal", "bce"), "head.loss", self.loss, "cross_entropy, focal or bce")
        for key in ("ring", "centre"):
            require(getattr(self, key) >= 0, f"head.{key}", getattr(self, key), "0 or more")


@dataclass(frozen=True)
class Augment:
    """The probability of each augmentation, in the order in which they are applied; see augment.py for their strengths."""

    affine: float = 0.5
    crop: float = 1.0
    grey: float = 0.1
    blur: float = 0.05
    noise: float = 0.05
    grid_shuffle: float = 0.3
    posterise: float = 0.2
    brightness_contrast: float = 0.5
    dropout: float = 0.05
    snow: float = 0.1
    rain: float = 0.05
    flip: float = 0.5
    rotate: float = 0.0
    zoom: float = 0.0
    warp: float = 0.0
    lighting: float = 0.0
    contrast: float = 0.0
    rgb: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            require(0 <= value <= 1, f"augment.{key}", value, "a probability between 0 and 1")


@dataclass(frozen=True)
class Train:
    size: int = 380  # pixels, both sides
    epochs: int = 20
    batch_size: int = 32  # over all processes
    learning_rate: float = 1.6e-3  # of backbone and pooling
    early_learning_rate: Optional[float] = None  # of the first half of the backbone; null: as the rest of it
    head_learning_rate: float = 1.6e-2  # of neck and head
    frozen_epochs: int = 0  # before the others, with all of the backbone but its batch normalisation frozen
    frozen_learning_rate: float = 6.67e-3  # in those
    frozen_stages: int = 0  # feature maps, from the largest on, whose layers keep the pretrained weights in all epochs
    schedule: str = "warmup"  # by epochs: a line up, a cosine down; or one_cycle, by steps, anew after the frozen epochs
    warmup: float = 0.2  # share of the epochs or steps
    final_factor: float = 0.01  # of the learning rates, at the start and towards the end; for `warmup`
    weight_decay: float = 0.01
    beta2: float = 0.999  # of Adam
    clip: Optional[float] = None  # the norm of all gradients at most
    sampling: str = "shuffle"  # of an epoch: each image once, or `whales`: each whale alike, images_per_whale of it side by side
    images_per_whale: int = 1
    mirror_identities: bool = False  # mirror images are individuals of their own
    unknown: bool = False  # images without whale_id train too, towards no class more than another
    mixup: float = 0.0  # alpha of the beta distribution; 0 is off
    precision: str = "fp16"  # on CUDA: fp16, bf16 or fp32; a CPU trains in fp32

    def __post_init__(self) -> None:
        require(32 <= self.size <= 2048, "train.size", self.size, "between 32 and 2048 pixels")
        require(0 <= self.epochs <= MOST_EPOCHS, "train.epochs", self.epochs, f"0 (the pretrained weights as they are) or more, at most {MOST_EPOCHS}")
        require(2 <= self.batch_size <= MOST_NUMBERS, "train.batch_size", self.batch_size, f"at least 2 (batch normalisation) and at most {MOST_NUMBERS}")
        require(0 <= self.frozen_epochs <= MOST_EPOCHS, "train.frozen_epochs", self.frozen_epochs, f"0 or more, at most {MOST_EPOCHS}")
        require(0 <= self.frozen_stages <= 5, "train.frozen_stages", self.frozen_stages, "0 to 5 feature maps")
        for key in ("learning_rate", "head_learning_rate", "frozen_learning_rate", "early_learning_rate", "clip"):
            require(getattr(self, key) is None or getattr(self, key) > 0, f"train.{key}", getattr(self, key), "above 0")
        require(self.schedule in ("warmup", "one_cycle"), "train.schedule", self.schedule, "warmup or one_cycle")
        require(0 < self.beta2 < 1, "train.beta2", self.beta2, "between 0 and 1")
        require(self.sampling in ("shuffle", "whales"), "train.sampling", self.sampling, "shuffle or whales")
        require(self.images_per_whale >= 1, "train.images_per_whale", self.images_per_whale, "at least 1")
        require(self.sampling != "whales" or self.batch_size % self.images_per_whale == 0, "train.images_per_whale", self.images_per_whale, f"a divisor of train.batch_size, {self.batch_size}")
        require(self.mixup >= 0, "train.mixup", self.mixup, "0 or more")
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.warmup < 1, "train.warmup", self.warmup, "a share of the epochs, 0 or more and below 1")
        require(0 <= self.final_factor <= 1, "train.final_factor", self.final_factor, "between 0 and 1")
        require(self.precision in ("fp16", "bf16", "fp32"), "train.precision", self.precision, "fp16, bf16 or fp32")

    @property
    def all_epochs(self) -> int:
        return self.frozen_epochs + self.epochs


@dataclass(frozen=True)
class Predict:
    test_size: Optional[int] = None  # pixels; null is the training size
    mirror: str = "concatenate"  # the mirror image's embedding: concatenate, average or off
    normalise: bool = False  # divide by the L2 norm, so that every model counts the same: the mean of the cosines
    weight: float = 1.0  # of the model's dot products within the ensemble, or of its list
    queries: Tuple[str, ...] = ()  # the viewpoints of the query photographs that the model is for; none: all
    database: Tuple[str, ...] = ()  # of the database photographs likewise; see routes.py
    local_size: Optional[int] = None  # pixels at which the model looks for what two photographs share place by place; null: it does not

    def __post_init__(self) -> None:
        require(self.test_size is None or 32 <= self.test_size <= 2048, "predict.test_size", self.test_size, "between 32 and 2048")
        require(self.local_size is None or 64 <= self.local_size <= 1024, "predict.local_size", self.local_size, "between 64 and 1024, or null")
        require(self.mirror in ("concatenate", "average", "off"), "predict.mirror", self.mirror, "concatenate, average or off")
        require(1e-30 <= self.weight <= 1e30, "predict.weight", self.weight, "above 0, from 1e-30 to 1e30")
        for key in ("queries", "database"):
            named = getattr(self, key)
            require(len(set(named)) == len(named) and all(map(heading, named)), f"predict.{key}", list(named), "viewpoints, each once, such as [left, right]")


@dataclass(frozen=True)
class Rank:
    """How rankings come of what the models see; fusion.py and rerank.py say what each choice does. Anything but these defaults travels as rank.json."""

    fusion: str = "concatenate"  # of the models: one cosine of all embeddings together, or reciprocal_rank of a list each
    rerank: str = "none"  # database_expansion, query_expansion, k_reciprocal or whale_sums
    neighbours: Optional[int] = None  # of a query, from its database; null: the method's own, see rerank.py. database_expansion has one a weight
    power: Optional[float] = None  # of cosines; null: the method's own
    weights: Tuple[float, ...] = (0.4, 0.4, 0.2)  # of the query and its best answers in database_expansion
    cosine: float = 0.3  # share of the query's own cosine in k_reciprocal and whale_sums
    candidates: int = 100  # of a query, which local evidence puts into another order where a model has predict.local_size
    evidence: float = 4.0  # weight of local evidence against the cosine's 1, each in units of its spread among a query's candidates

    def __post_init__(self) -> None:
        require(self.fusion in ("concatenate", "reciprocal_rank"), "rank.fusion", self.fusion, "concatenate or reciprocal_rank")
        kinds = "none", "database_expansion", "query_expansion", "k_reciprocal", "whale_sums"
        require(self.rerank in kinds, "rank.rerank", self.rerank, "one of " + ", ".join(kinds))
        require(self.neighbours is None or 1 <= self.neighbours <= 100, "rank.neighbours", self.neighbours, "between 1 and 100, or null")
        require(self.power is None or 1 <= self.power <= 8, "rank.power", self.power, "between 1 and 8, or null")  # float32 holds no higher powers
        positive = 1 < len(self.weights) <= 11 and min(self.weights) >= 0 < self.weights[0] and abs(sum(self.weights) - 1) < 1e-6
        require(positive, "rank.weights", list(self.weights), "2 to 11 weights that sum to 1, the query's first and above 0")
        require(20 <= self.candidates <= 10_000, "rank.candidates", self.candidates, "between 20 and 10,000")
        require(0 <= self.evidence <= 1000, "rank.evidence", self.evidence, "between 0 and 1000")
        require(0 <= self.cosine <= 1, "rank.cosine", self.cosine, "a share between 0 and 1")


@dataclass(frozen=True)
class Identify:
    """How individuals are named by all models together; what else it takes is fitted on validation (calibrate.py)."""

    by: str = "both"  # what counts: classifier, neighbours, or both
    temperature: Optional[float] = None  # of the classifier's softmax; null: as fitted on validation
    new_share: Optional[float] = None  # of the first answers that are to be new individuals; null: as fitted on validation
    by_species: bool = False  # that share within each species
    columns: Tuple[str, ...] = ("Image", "Id")  # of the submission
    new: str = "new_whale"  # what an unknown individual is called there

    def __post_init__(self) -> None:
        require(self.by in ("classifier", "neighbours", "both"), "identify.by", self.by, "classifier, neighbours or both")
        require(self.temperature is None or 0 < self.temperature <= 1e6, "identify.temperature", self.temperature, "above 0 and at most 1e6")
        require(self.new_share is None or 0 <= self.new_share <= 1, "identify.new_share", self.new_share, "between 0 and 1")
        require(len(set(self.columns)) == len(self.columns) == 2 and all(map(heading, self.columns)), "identify.columns", list(self.columns), "two names")
        require(self.new.split() == [self.new] and heading(self.new), "identify.new", self.new, "one word")


@dataclass(frozen=True)
class Spec:
    """One model of an ensemble, complete. It travels beside the model's weights as NAME.json."""

    name: str
    position: int  # in the recipe
    model: Model
    head: Head = Head()
    augment: Augment = Augment()
    train: Train = Train()
    predict: Predict = Predict()

    @property
    def test_size(self) -> int:
        return self.predict.test_size or self.train.size
