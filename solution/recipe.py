"""What a recipe is: an ensemble as a table, one entry a model, each holding only what differs from the defaults.

A recipe file has `models` (name -> differences), optionally `shared` (differences every model has), `about` (one line),
`protocol` (how `run_all.sh` folds the data), `rank` (what becomes of the models' cosines) and `identify` (how individuals are named). A
difference is nested as the code is: `model`, `head`, `augment`, `train`, `predict`; spec.py has them all with their defaults.
"""

import dataclasses
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Hashable, List, Mapping, Optional, Tuple, Union, get_type_hints

from solution.files import STRICT, Complaints, InputError, read_json, whole, write_json
from solution.spec import Augment, Head, Identify, Model, Predict, Rank, Spec, Train, require  # others say recipe.Model

RECIPES = Path(__file__).parent / "recipes"
MOST_BYTES, MOST_NODES = 1 << 18, 10_000  # of a recipe file; of what it holds, an alias counting as often as it stands there
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # zero bytes and halves of a character, which YAML and JSON can escape
OTHERS = "rank", "identify", "provenance"  # .json of WEIGHTS that are no model's
PROTOCOLS = ("stratified", "encounter", "whale", "time", "identify")


@dataclass(frozen=True)
class Recipe:
    name: str
    models: Tuple[Spec, ...]
    about: str = ""
    protocol: str = "whale"
    rank: Rank = Rank()
    identify: Identify = Identify()

    def __post_init__(self) -> None:
        require(self.protocol in PROTOCOLS, "protocol", self.protocol, "one of " + ", ".join(PROTOCOLS))
        classifies = any(spec.head.total for spec in self.models)
        require(self.identify.by != "classifier" or classifies, "identify.by", self.identify.by, "both or neighbours where no model has head.total true")


def nearest(word: str, words: List[str]) -> str:
    """A hint such as `; did you mean 'epochs'?`, empty where nothing is near."""
    match = difflib.get_close_matches(str(word), words, 1)
    return f"; did you mean {match[0]!r}?" if match else ""


def converted(value: Any, wanted: Any, key: str) -> Any:
    """`value` as the annotated type `wanted` (a plain type, Optional or a homogeneous Tuple); ValueError names `key`."""
    origin, arguments = getattr(wanted, "__origin__", None), getattr(wanted, "__args__", ())
    if dataclasses.is_dataclass(wanted):
        return built(wanted, value, key + ".")
    if origin is Union:
        return None if value is None else converted(value, arguments[0], key)
    if origin is tuple:
        require(isinstance(value, (list, tuple)), key, value, "a list")
        return tuple(converted(item, arguments[0], key) for item in value)
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        value = number(value)  # YAML reads 5e-4 as text
    require(type(value) is wanted and (wanted is not float or abs(value) < float("inf")), key, value, {int: "a whole number", float: "a number", bool: "true or false"}.get(wanted, "text"))
    require(wanted is not str or not NO_TEXT.search(value), key, value, "text that a file can hold")
    return value


def number(value: Union[int, str]) -> Union[float, int, str]:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value


def built(cls: type, values: Any, prefix: str = "") -> Any:
    """A dataclass from a nested mapping; ValueError names an unknown key, a missing one, a wrong type or a bad value."""
    require(isinstance(values, Mapping), prefix.rstrip(".") or "recipe", values, "a table of keys and values")
    types = get_type_hints(cls)
    for key in values:
        if key not in types:
            raise ValueError(f"unknown key {prefix}{key}{nearest(key, list(types))}")
    for field in dataclasses.fields(cls):
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{prefix}{field.name} is missing")
    return cls(**{key: converted(value, types[key], prefix + key) for key, value in values.items()})


def merged(base: Mapping, differences: Mapping) -> Dict[str, Any]:
    """Nested tables laid over each other; the second wins."""
    both = dict(base)
    for key, value in differences.items():
        both[key] = merged(both[key], value) if isinstance(value, Mapping) and isinstance(both.get(key), Mapping) else value
    return both


def from_table(table: Any, name: str) -> Recipe:
    """A recipe from what its YAML file holds; ValueError names the model and the key that are wrong."""
    require(isinstance(table, Mapping), "recipe", table, "a table with the key models")
    known = ["models", "shared", "about", "protocol", "rank", "identify"]
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {key}{nearest(key, known)}")
    require(isinstance(table.get("models"), Mapping) and len(table["models"]) > 0, "models", table.get("models"), "a table with a model or more")
    shared = table.get("shared") or {}
    require(isinstance(shared, Mapping), "shared", shared, "a table")
    specs = [named_spec(name, position, shared, differences) for position, (name, differences) in enumerate(table["models"].items())]
    told = {key: converted(table[key], get_type_hints(Recipe)[key], key) for key in ("about", "protocol", "rank", "identify") if key in table}
    return Recipe(name, tuple(specs), **told)


def named_spec(name: str, position: int, shared: Mapping, differences: Optional[Mapping]) -> Spec:
    require(isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w-]{0,49}", name), "models", name, "a name of at most 50 letters, digits, - and _ (it names files)")
    require(name not in OTHERS, "models", name, "another name; that .json holds something else in the weights")
    require(isinstance(differences or {}, Mapping), name, differences, "a table of differences")
    values = merged(shared, differences or {})
    for key in ("name", "position"):
        if key in values:
            raise ValueError(f"{name}: unknown key {key}")
    try:
        return built(Spec, dict(values, name=name, position=position))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def load(recipe: str) -> Recipe:
    """A recipe by its name (a file of solution/recipes) or by the path of a YAML file; InputError names what is wrong."""
    import yaml

    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if not os.path.isfile(path):
        names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        raise InputError(f"no recipe {recipe!r}{nearest(recipe, names)}; there are {', '.join(names)}, or give the path of a .yaml file")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES >> 10} KiB are no recipe; take what is not needed out of it")
    try:
        return from_table(yaml.load(path.read_text("utf-8"), careful(yaml.SafeLoader)), path.stem)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; a recipe has tables in tables in tables and no more") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from None


def careful(loader: type) -> type:
    """A YAML loader that refuses a key given twice, where YAML's own would drop the first without a word, and aliases that make much of little."""

    class Loader(loader):
        def get_single_node(self):
            node = super().get_single_node()
            if node is not None and nodes_of(node, {}) > MOST_NODES:
                raise ValueError(f"more than {MOST_NODES} values, an alias (*name) counting as often as it stands there, are no recipe")
            return node

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key in (self.construct_object(key, deep=True) for key, _ in node.value):
                if isinstance(key, Hashable) and key in seen:
                    raise ValueError(f"line {node.start_mark.line + 1}: {key} stands there twice")
                seen.add(key if isinstance(key, Hashable) else None)
            return super().construct_mapping(node, deep)

    return Loader


def nodes_of(node, known: Dict[int, int]) -> int:
    """The values that a YAML node stands for, its own and those below, an alias counting each time; more than enough where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        parts = node.value if isinstance(node.value, list) else []
        below = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(nodes_of(part, known) for part in below)
    return known[id(node)]


def save(recipe: Recipe, path: Path) -> Path:
    """Writes the recipe as resolved, every default spelt out; `load` reads it back to the same recipe."""
    import yaml

    models = {spec.name: plain(spec) for spec in recipe.models}
    for entry in models.values():
        del entry["name"], entry["position"]
    table = {"about": recipe.about, "protocol": recipe.protocol, "rank": plain(recipe.rank), "identify": plain(recipe.identify), "models": models}
    with whole(path) as beside:
        beside.write_text(yaml.safe_dump(table, sort_keys=False))
    return Path(path)


def plain(value: Any) -> Any:
    """A dataclass as dictionaries and lists, ready for JSON and YAML."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def specs(weights: Path, complaints: Complaints = STRICT) -> List[Spec]:
    """The specs of the models in WEIGHTS in the recipe's order; InputError where there is none. Complains of damaged ones."""
    found = []
    for path in sorted(weights.glob("*.npz")):
        try:
            found.append(read_spec(path.with_suffix(".json")))
        except InputError as error:
            complaints.add(str(error) if complaints.strict else f"{path.stem}: left out: {error}")
    if not found:
        raise InputError(f"{weights}: no models here (NAME.npz with NAME.json); train some with python -m solution.train")
    return sorted(found, key=lambda spec: (spec.position, spec.name))


def read_spec(path: Path) -> Spec:
    """The spec of one model from its NAME.json; InputError names the key that is wrong."""
    try:
        spec = built(Spec, read_json(path))
    except ValueError as error:
        raise InputError(f"{path}: not the spec of a model: {error}") from None
    if spec.name != path.stem:
        raise InputError(f"{path}: holds the spec of a model named {spec.name!r}")
    return spec


def read_rank(directory: Path) -> Rank:
    """How the models of a directory of weights or embeddings rank: its rank.json, the defaults where there is none; InputError names the key that is wrong."""
    path = directory / "rank.json"
    if not os.path.lexists(path):
        return Rank()
    try:
        return built(Rank, read_json(path), "rank.")
    except ValueError as error:
        raise InputError(f"{path}: not a way to rank: {error}") from None


def write_rank(rank: Rank, directory: Path) -> None:
    """Leaves a rank.json in the directory where it is not the default, and none where it is."""
    path = directory / "rank.json"
    if rank != Rank():
        write_json(plain(rank), path)
    else:
        path.unlink(missing_ok=True)


def keep_rank(recipe: Recipe, weights: Path) -> None:
    """Puts the recipe's way to rank beside its weights, also beside finished ones: no training depends on it."""
    if load(str(weights / "recipe.yaml")).rank != recipe.rank:
        save(recipe, weights / "recipe.yaml")
    write_rank(recipe.rank, weights)
