"""Who is on a photograph, by plain loops over the npz and json files of weights: what solution.naming has to say.

    known = naive_names.Weights(weights, ["first", "second"])
    scores, chances = known.scores(embeddings, 3), known.chances(known.scores(embeddings, 3))

`embeddings` are what `--embeddings` wrote, by model: plain and mirror (n, width). Both results are tables label -> number.
"""

import json
import math
from pathlib import Path

import numpy as np


class Weights:
    def __init__(self, weights: Path, names: list[str]) -> None:
        self.told = json.loads((weights / "identify.json").read_text())
        self.specs = {name: json.loads((weights / f"{name}.json").read_text()) for name in names}
        self.galleries = {name: stored(weights / "gallery" / f"{name}.npz") for name in names}
        files = {name: weights / "classifier" / f"{name}.npz" for name in names}
        self.classifiers = {name: stored(file) for name, file in files.items() if file.is_file()}
        named = [set(part["whale_id"]) for part in (*self.galleries.values(), *self.classifiers.values())]
        self.individuals = sorted(set.union(*named) - {""})

    def add(self, whale_id: str, rows: dict) -> None:
        """One more photograph in the gallery, as `row` makes it of its embeddings."""
        for name, gallery in self.galleries.items():
            gallery["whale_id"] = np.append(gallery["whale_id"], whale_id)
            gallery["embedding"] = np.concatenate([gallery["embedding"], [rows[name]]])
        self.individuals = sorted({*self.individuals, whale_id} - {""})

    def row(self, name: str, embedded: dict, number: int) -> np.ndarray:
        """Image and mirror image as the recipe joins them, of unit length."""
        way = self.specs[name]["predict"]["mirror"]
        plain, mirror = (embedded[key][number].astype(float) for key in ("plain", "mirror"))
        joined = {"off": list(plain), "average": list((plain + mirror) / 2), "concatenate": [*plain, *mirror]}[way]
        return np.array(joined) / math.sqrt(sum(value**2 for value in joined))

    def similarities(self, embeddings: dict, number: int) -> dict:
        """(2 - d) / 2 for the nearest photograph of each individual ("": the unknown ones), the mean over the models."""
        means = dict.fromkeys([*self.individuals, ""], 0.0)
        for name, share in self.shares(self.specs).items():
            query, gallery = self.row(name, embeddings[name], number), self.galleries[name]
            nearest = dict.fromkeys(means, 2.0)
            for whale, image in zip(gallery["whale_id"], gallery["embedding"]):
                nearest[whale] = min(nearest[whale], math.dist(query, image))
            for whale in means:
                means[whale] += share * (2 - nearest[whale]) / 2
        return means

    def probabilities(self, embeddings: dict, number: int) -> dict:
        """The softmax of temperature * logits, the mean over the models that have a classifier."""
        means = dict.fromkeys(self.individuals, 0.0)
        for name, share in self.shares(self.classifiers).items():
            part, way = embeddings[name], self.specs[name]["predict"]["mirror"]
            seen = part["plain"][number] if way == "off" else (part["plain"][number] + part["mirror"][number]) / 2
            logits = [float(weight @ seen.astype(float)) + bias for weight, bias in zip(*(self.classifiers[name][key].astype(float) for key in ("weight", "bias")))]
            for whale, value in softmax(dict(zip(self.classifiers[name]["whale_id"], (self.told["temperature"] * logit for logit in logits)))).items():
                means[whale] += share * value
        return means

    def shares(self, names) -> dict:
        weights = {name: self.specs[name]["predict"]["weight"] for name in names}
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def scores(self, embeddings: dict, number: int) -> dict:
        """c1 * S + c2 * S' + c3 * P' of every individual and, last, of a new one."""
        t, s, p = self.told, self.similarities(embeddings, number), self.probabilities(embeddings, number)
        scores = {whale: t["c1"] * s[whale] + t["c2"] * s[whale] + t["c3"] * p[whale] for whale in self.individuals}
        return {**scores, t["new"]: t["c1"] * s[""] + t["c2"] * t["theta_f"] + t["c3"] * t["theta_p"]}

    def chances(self, scores: dict) -> dict:
        new = self.told["new"]
        return softmax({name: self.told["scale"] * score + (self.told["bias"] if name == new else 0) for name, score in scores.items()})


def five(scores: dict) -> list[str]:
    return sorted(scores, key=lambda name: -scores[name])[:5]  # stable: equal ones by their place


def softmax(exponents: dict) -> dict:
    powers = {name: math.exp(value - max(exponents.values())) for name, value in exponents.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def stored(file: Path) -> dict:
    with np.load(file, allow_pickle=False) as found:
        return dict(found)
