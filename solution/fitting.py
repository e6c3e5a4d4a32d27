"""The training of one model: its steps, its checkpoints, and the loop."""

import contextlib
import csv
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import lightning_fabric
import numpy as np
import torch
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from solution import centres, checkpoints, gallery, local_fit, models, norms, recipe, schedule, sound
from solution.batches import Augmented, Batches, TrainingSet
from solution.checkpoints import CHECKPOINT_SECONDS
from solution.files import Failure, InputError, arrays, check_room, progress, whole, write_arrays
from solution.losses import Objective
from solution.places import Sight, write_sight
from solution.weights import load_pretrained

CHECK_STEPS = 20  # between looks at the loss, each of which waits for the GPU


class Trainee(nn.Module):
    """A model and what it is trained against as one module: images (n, 3, size, size), labels and species (n,) to the loss.

    With mixup each image holds `share` of itself and the rest of the image that `order` (n,) names; so does its loss.
    """

    def __init__(self, spec: recipe.Spec, training: TrainingSet) -> None:
        super().__init__()
        self.model = models.EmbeddingModel(spec.model)
        self.objective = Objective(spec.model.parts, self.model.part_width, torch.from_numpy(training.counts), len(training.species_names), spec.head)

    def forward(self, images: torch.Tensor, labels: torch.Tensor, species: torch.Tensor, order: Optional[torch.Tensor] = None, share: float = 1.0) -> torch.Tensor:
        if order is None:
            return self.objective(self.model(images), labels, species)
        embeddings = self.model(share * images + (1 - share) * images[order])
        return share * self.objective(embeddings, labels, species) + (1 - share) * self.objective(embeddings, labels[order], species[order])


def launched(device: str, train: recipe.Train) -> lightning_fabric.Fabric:
    """Lightning Fabric on this process, or on all processes that torchrun started; CPUs train in float32."""
    precision = train.precision
    local, world = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    plugins = []
    if device == "cuda" and precision != "fp32":
        scaler = torch.amp.GradScaler("cuda") if precision == "fp16" else None
        plugins = [MixedPrecision("16-mixed" if precision == "fp16" else "bf16-mixed", "cuda", scaler)]
    fabric = lightning_fabric.Fabric(accelerator=device, devices=local, num_nodes=world // local, strategy=DDPStrategy(find_unused_parameters=train.frozen_epochs + train.frozen_stages > 0) if world > 1 else "auto", plugins=plugins)
    fabric.launch()
    return fabric


@dataclass
class Progress:
    """How far a training is; travels inside its checkpoint."""

    settings: str  # fingerprint of everything that must not change before a resume
    epoch: int = 0
    step: int = 0  # of the epoch that is under way
    loss: float = 0.0  # summed over the steps of that epoch
    seconds: float = 0.0  # spent on that epoch
    log: List[Dict[str, float]] = field(default_factory=list)


class Fitting:
    """One model in training: everything that a checkpoint holds, and the steps that change it."""

    def __init__(self, spec: recipe.Spec, training: TrainingSet, seed: int, device: str, workers: int, checkpoint: Path) -> None:
        self.spec, self.seed, self.checkpoint = spec, seed, checkpoint
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS sums in any order
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # else new memory is filled with NaN first: an eighth of a step on a CPU
        torch.backends.cudnn.deterministic = True
        self.fabric = launched(device, spec.train)
        self.progress = Progress(json.dumps([recipe.plain(spec), seed, training.fingerprint, self.fabric.world_size]))
        self.require_alike(self.progress.settings, "the recipe, --seed, --data and the finished models of --output")
        torch.manual_seed(seed)
        self.trainee = Trainee(spec, training).to(memory_format=torch.channels_last)
        self.source = load_pretrained(self.trainee.model, spec.model)
        if not sound.finite(self.trainee.state_dict().values()):
            raise InputError(f"{spec.name}: model.pretrained {spec.model.pretrained}: holds weights that are no numbers; take others")
        self.whole_batch = contextlib.nullcontext()
        if self.fabric.world_size > 1 and device == "cuda":
            self.trainee = norms.shared_on_gpu(self.trainee)
        elif self.fabric.world_size > 1:
            self.whole_batch = norms.WholeBatch(self.fabric.global_rank, self.fabric.world_size)
        model = self.trainee.model
        self.still = schedule.lowest(model.backbone, spec.train.frozen_stages)
        self.module, self.optimiser = self.fabric.setup(self.trainee, schedule.optimiser_for(model.backbone, [model.necks, self.trainee.objective], spec.train))
        self.batches = Batches(training.all_labels, spec.train, seed, self.fabric.global_rank, self.fabric.world_size)
        if self.batches.steps == 0 < spec.train.all_epochs:
            raise InputError(f"{spec.name}: train.batch_size {spec.train.batch_size} is more than the {len(training.labels)} labelled images")
        if spec.train.batch_size % self.fabric.world_size:
            raise InputError(f"{spec.name}: train.batch_size {spec.train.batch_size} does not divide among {self.fabric.world_size} processes")
        if spec.train.batch_size < 2 * self.fabric.world_size:
            raise InputError(f"{spec.name}: train.batch_size {spec.train.batch_size} leaves each of {self.fabric.world_size} processes one image, and batch normalisation needs two; take more, or fewer processes")
        self.training, self.workers = training, workers
        self.sight: Optional[Sight] = None  # of local evidence, once it is learned
        self.learning: local_fit.State = {}  # how far that is
        self.room: Optional[Path] = None  # the folder of the weights, once it was tried; that of the checkpoints goes when it is empty

    @cached_property
    def loader(self) -> DataLoader:
        """The batches of the epoch at which `batches` stands; made when first asked for, as it reads the photographs."""
        dataset = Augmented(self.training, self.spec, self.seed, self.workers)
        return DataLoader(dataset, batch_sampler=self.batches, num_workers=self.workers, persistent_workers=self.workers > 0, pin_memory=self.fabric.device.type == "cuda")

    def fit(self, stop: Callable[[], bool], validate: Optional[Callable[[models.EmbeddingModel], Dict[str, float]]] = None) -> bool:
        """Trains to the last epoch, and what comes after it; False where `stop()` said so before, with a checkpoint of the epochs written. InputError on a bad checkpoint."""
        while self.progress.epoch < self.spec.train.all_epochs:
            if not self.epoch(stop):
                self.save_checkpoint()
                return False
            if validate:
                self.progress.log[-1].update(self.on_first(lambda: validate(self.trainee.model)))
            self.save_checkpoint()
            self.say()
        if self.spec.train.all_epochs and not self.optimiser.optimizer.state:
            raise Failure(f"{self.spec.name}: every step of {self.spec.train.all_epochs} epochs overflowed half precision, so nothing was learned; train with train.precision bf16 or fp32")
        return self.learn_places(stop)

    def learn_places(self, stop: Callable[[], bool]) -> bool:
        """What local evidence learns, where the recipe has it, by the first process; False where `stop()` said so before."""
        if self.spec.predict.local_size is None:
            return True
        if self.fabric.global_rank == 0:
            self.sight = local_fit.fitted(self.trainee.model, self.spec, self.training, self.seed, stop, self.learning, self.keep_learning)
        return self.on_first(lambda: self.sight is not None)

    def keep_learning(self, state: local_fit.State) -> None:
        self.learning = state
        self.write_checkpoint()

    def epoch(self, stop: Callable[[], bool]) -> bool:
        """One epoch, or what is left of it, with checkpoints in between where it is long; False where it was stopped between two steps."""
        now, started = self.progress, time.perf_counter() - self.progress.seconds
        self.batches.epoch, self.batches.step = now.epoch, now.step
        self.thaw(now.epoch)
        total = torch.tensor(now.loss, device=self.fabric.device, dtype=torch.float64)
        due = time.monotonic() + CHECKPOINT_SECONDS
        for batch in progress(self.loader, f"{self.spec.name}: epoch {now.epoch + 1}"):
            stopped, late = self.on_first(lambda: (stop(), time.monotonic() >= due))
            if stopped or late:
                now.loss, now.seconds = self.checked(total), time.perf_counter() - started
            if stopped:
                return False
            if late:
                self.save_checkpoint()
                due = time.monotonic() + CHECKPOINT_SECONDS
            total += self.step(*batch)
            now.step += 1
            if now.step % CHECK_STEPS == 0:
                self.checked(total)
        mean = self.checked(total) / self.batches.steps
        now.log.append({"epoch": now.epoch, "learning_rate": self.optimiser.param_groups[1]["lr"], "loss": mean, "seconds": time.perf_counter() - started})
        now.epoch, now.step, now.loss, now.seconds = now.epoch + 1, 0, 0.0, 0.0
        return True

    def thaw(self, epoch: int) -> None:
        """Everything learns that does so in an epoch."""
        self.module.train()
        schedule.freeze(self.trainee.model.backbone, epoch < self.spec.train.frozen_epochs, self.still)

    def step(self, images: torch.Tensor, labels: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        train, now = self.spec.train, self.progress
        random = np.random.SeedSequence((self.seed, now.epoch, now.step))
        torch.manual_seed(int(random.generate_state(1)[0]))
        learning_rates, beta = schedule.rates(now.epoch, now.step, self.batches.steps, train)
        for group, learning_rate in zip(self.optimiser.param_groups, learning_rates):
            group["lr"], group["betas"] = learning_rate, (beta, train.beta2)
        images, labels, species = (tensor.to(self.fabric.device, non_blocking=True) for tensor in (images, labels, species))
        mixing = (torch.randperm(len(labels)), np.random.default_rng(random).beta(train.mixup, train.mixup)) if train.mixup else ()
        with self.whole_batch:
            loss = self.module(models.normalised(images, self.spec.model), labels, species, *mixing)
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        if train.clip:
            self.fabric.clip_gradients(self.module, self.optimiser, max_norm=train.clip, error_if_nonfinite=False)
        self.optimiser.step()
        return loss.detach()

    def checked(self, total: torch.Tensor) -> float:
        """The summed loss, averaged over the processes; Failure where it, or what a checkpoint holds after the last step, is no longer a number,
        or where nothing is learned any more."""
        loss = float(self.fabric.all_reduce(total, reduce_op="mean"))
        trouble = sound.trouble(loss, self.trainee.state_dict().values(), self.optimiser.optimizer, self.scaler)
        if trouble:
            raise Failure(f"{self.spec.name}: {trouble} in epoch {self.progress.epoch + 1}; lower train.learning_rate, or train with train.precision bf16 or fp32")
        return loss

    def require_alike(self, value: object, what: str) -> None:
        """InputError where this process has another value than the first one: on another machine, with files of its own."""
        if self.on_first(lambda: value) != value:
            raise InputError(f"{self.spec.name}: process {self.fabric.global_rank} does not train what the first one does: {what} must be alike on all machines; "
                             "share them, or copy them there")

    def on_first(self, answer: Callable):
        """What the first process answers, on all of them."""
        return self.fabric.broadcast(answer() if self.fabric.global_rank == 0 else None)

    def say(self) -> None:
        if self.fabric.global_rank == 0:
            row, left = self.progress.log[-1], self.spec.train.all_epochs - self.progress.epoch
            score = f", MAP@20 {row['map20']:.3f}" if "map20" in row else ""
            print(f"{self.spec.name}: epoch {self.progress.epoch}/{self.spec.train.all_epochs}, loss {row['loss']:.3f}{score}, {row['seconds']:.0f} s, {left * row['seconds'] / 60:.0f} min left", file=sys.stderr)

    @property
    def scaler(self) -> Optional[torch.amp.GradScaler]:
        return getattr(self.fabric._precision, "scaler", None)

    def check_room(self, weights: Path) -> None:
        """OSError where the checkpoints, two at a time, or the finished model would find no room: before the first step, not after an epoch."""
        size = sum(tensor.nbytes for tensor in self.trainee.state_dict().values())
        if self.progress.epoch < self.spec.train.all_epochs:
            check_room(self.checkpoint, 3 * size * (1 if self.checkpoint.is_file() else 2))  # Adam keeps two more numbers for each weight
            self.room = weights
        check_room(weights / f"{self.spec.name}.npz", size)

    def save_checkpoint(self) -> None:
        """Everything to go on from here to the same bytes, in one file of plain arrays."""
        if self.fabric.global_rank == 0:
            self.write_checkpoint()
        self.fabric.barrier()

    def write_checkpoint(self) -> None:
        if self.room and not self.room.is_dir():
            raise Failure(f"{self.room}: is no longer there; was its disk taken away? With it back, the same command with --resume goes on")
        state = {f"trainee/{name}": tensor.cpu().numpy() for name, tensor in self.trainee.state_dict().items()}
        for number, values in self.optimiser.optimizer.state_dict()["state"].items():
            state.update({f"optimiser/{number}/{name}": tensor.cpu().numpy() for name, tensor in values.items()})
        state.update({f"learning/{name}": array for name, array in self.learning.items()})
        told = {**asdict(self.progress), "scaler": self.scaler.state_dict() if self.scaler else None}
        write_arrays(self.checkpoint, progress=np.array(json.dumps(told)), **state)

    def resume(self) -> None:
        """Goes on from the checkpoint, where there is one; InputError where it was made under other settings."""
        if self.checkpoint.is_file():
            self.load_checkpoint()
        self.require_alike(asdict(self.progress), f"checkpoints such as {self.checkpoint}")

    def load_checkpoint(self) -> None:
        state = arrays(self.checkpoint, ("progress",))
        told = json.loads(str(state.pop("progress")))
        if told["settings"] != self.progress.settings:
            raise InputError(f"{self.checkpoint}: made with another recipe, seed, data or number of processes; train with those, or remove it to start anew")
        scaler = told.pop("scaler")
        if self.scaler and scaler:
            self.scaler.load_state_dict(scaler)
        self.progress = Progress(**told)
        trainee = {name[8:]: torch.from_numpy(value) for name, value in state.items() if name.startswith("trainee/")}
        self.trainee.load_state_dict(trainee)
        self.optimiser.optimizer.load_state_dict({**self.optimiser.optimizer.state_dict(), "state": optimiser_state(state)})
        self.learning = {name[9:]: value for name, value in state.items() if name.startswith("learning/")}

    def save(self, weights: Path) -> None:
        """Writes the last epoch's model and the log, then drops the checkpoint."""
        if self.fabric.global_rank == 0:
            columns = list(dict.fromkeys(key for row in self.progress.log for key in row)) or ["epoch"]
            with whole(weights / f"{self.spec.name}.log.csv") as beside, open(beside, "w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.progress.log)
            if self.trainee.objective.total is not None:
                linear, known = self.trainee.objective.total[1], self.training.whale_ids  # mirror images' own whales come after these
                values = (tensor.detach().cpu().numpy()[: len(known)] for tensor in (linear.weight, linear.bias))
                gallery.write_classifier(gallery.Classifier(known, *values), weights, self.spec.name)
            if self.spec.train.all_epochs:  # untrained ones tell nothing
                centres.write(self.trainee.objective, self.training.whale_ids, weights, self.spec.name)
            if self.spec.predict.local_size:
                write_sight(self.sight, local_fit.place(weights, self.spec))
            models.save(self.trainee.model, self.spec, weights)
            checkpoints.drop(self.checkpoint)
        self.fabric.barrier()


def optimiser_state(state: Dict[str, np.ndarray]) -> Dict[int, Dict[str, torch.Tensor]]:
    values: Dict[int, Dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        kind, _, rest = key.partition("/")
        if kind == "optimiser":
            number, _, name = rest.partition("/")
            values.setdefault(int(number), {})[name] = torch.from_numpy(value)
    return values


def trial(spec: recipe.Spec, training: TrainingSet, count: int, seed: int, device: str) -> Tuple[float, float, float]:
    """Seconds of one training step, from a warm-up and three steps on one batch, those that local evidence learns for afterwards with `count`
    photographs, and the peak memory in MB."""
    untrained = replace(spec, model=replace(spec.model, pretrained="none"))  # takes as long, and needs no hub
    fitting = Fitting(untrained, training, seed, device, workers=0, checkpoint=Path())
    fitting.thaw(epoch=spec.train.frozen_epochs)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        for batch in fitting.loader:
            fitting.checked(fitting.step(*batch))
        seconds.append((time.perf_counter() - start) / max(1, fitting.batches.steps))
    learning = local_fit.trial(fitting.trainee.model, spec, training, count) if spec.predict.local_size else 0.0
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return min(seconds[1:]), learning, peak
