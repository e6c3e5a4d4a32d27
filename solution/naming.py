"""Who is on these photographs: weights with their gallery + photographs -> five names each, and how sure they are.

A model counts once all its passes over the photographs are done. `fallback` answers before any model.
"""

import os
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple

import numpy as np
import pandas as pd

from solution import embed, fusion, gallery, identify, recipe
from solution.files import STRICT, Complaints, InputError

SCORES = 1 << 25  # held at once, some 32 bytes each


class Evidence:
    """What the models see of q photographs: similarities to the individuals of a gallery, and the classifiers' logits."""

    def __init__(self, specs: List[recipe.Spec], weights: Path, known: gallery.Gallery) -> None:
        self.specs, self.gallery = specs, known
        self.classifiers = [gallery.read_classifier(weights, spec) for spec in specs]
        named = [known.whale_id.astype(str)] + [classifier.whale_id for classifier in self.classifiers if classifier]
        self.individuals = np.setdiff1d(np.concatenate(named), "")
        self.column = np.where(known.whale_id == "", len(self.individuals), np.searchsorted(self.individuals, known.whale_id.astype(str)))
        self.weights = np.array([spec.predict.weight for spec in specs]) / sum(spec.predict.weight for spec in specs)

    def similarity(self, queries: Dict[str, fusion.Embeddings]) -> np.ndarray:
        """(q, k + 1): the models' mean of (2 - d) / 2, unknown individuals in the last column."""
        parts = [gallery.unit_rows(spec, queries[spec.name]) for spec in self.specs]
        for spec, rows in zip(self.specs, parts):
            gallery.check_width(spec.name, self.gallery.embeddings[spec.name], rows)
        return sum(weight * identify.similarities(rows, self.gallery.embeddings[spec.name], self.column, len(self.individuals))
                   for weight, spec, rows in zip(self.weights.astype(np.float32), self.specs, parts))

    def probability(self, queries: Dict[str, fusion.Embeddings], temperature: float) -> Optional[np.ndarray]:
        """(q, k): the mean of the classifiers' softmax at a temperature, 0 for individuals they were not trained on; None without any."""
        having = [(weight, spec, classifier) for weight, spec, classifier in zip(self.weights, self.specs, self.classifiers) if classifier]
        if not having:
            return None
        mean = np.zeros((len(queries[self.specs[0].name]["plain"]), len(self.individuals)), np.float32)
        for weight, spec, classifier in having:
            if classifier.weight.shape[1] != queries[spec.name]["plain"].shape[1]:
                raise InputError(f"classifier/{spec.name}.npz: weights for {classifier.weight.shape[1]} numbers, the model gives {queries[spec.name]['plain'].shape[1]}; was it made with other weights?")
            columns = np.searchsorted(self.individuals, classifier.whale_id)
            mean[:, columns] += np.float32(weight) * identify.probabilities(classifier.logits(queries[spec.name]), temperature)
        return mean / np.float32(sum(weight for weight, _, _ in having))


class Naming:
    """The answers for the photographs of `asked`, a table with image_id and path, by what `weights` hold and a further gallery.

    `table` lists what is to be embedded: the photographs that are asked, then those of `further` that the weights' gallery lacks.
    """

    untrained, trained = "names the most photographed individuals, of no model", "names with "

    def __init__(self, weights: Path, specs: List[recipe.Spec], asked: pd.DataFrame, further: Optional[Path], complaints: Complaints = STRICT) -> None:
        self.weights, self.asked = weights, asked
        self.identification = identify.read(weights / "identify.json")
        self.known = gallery.read(weights, [spec.name for spec in specs])
        if self.identification.new in self.known.whale_id:
            raise InputError(f"{weights}/identify.json: new is {self.identification.new!r}, which is an individual of the gallery; train the models again")
        self.further = gallery.labelled(further, complaints) if further else None
        new = [] if self.further is None else [self.further[gallery.unseen(self.further, self.known)]]
        self.table = pd.concat([asked, *new], ignore_index=True).fillna("")
        self.count = len(asked)

    def passes(self, specs: List[recipe.Spec], joint: bool) -> List[embed.Pass]:
        """Model by model: the gallery's rows hold the mirror image too, so that the image alone is like none of them."""
        return sorted(embed.passes(specs, joint), key=lambda one: specs.index(one[0]))

    def usable(self, spec: recipe.Spec, embeddings: fusion.Embeddings) -> bool:
        return "plain" in embeddings and (spec.predict.mirror == "off" or "mirror" in embeddings)

    def fallback(self) -> pd.DataFrame:
        """An answer without any model: a new individual, then those with most photographs."""
        whales = pd.Series(self.known.whale_id[self.known.whale_id != ""]).value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
        return self.submission(np.tile(np.array([self.identification.new, *whales.index[: identify.TOP - 1]], dtype=object), (len(self.asked), 1)))

    def answers(self, specs: List[recipe.Spec], embeddings: Dict[str, fusion.Embeddings], unreadable: Set[int]) -> Tuple[pd.DataFrame, pd.DataFrame]:
        """The submission, and of each photograph the chance of each of its five names and of a new individual.

        `unreadable` are rows of `table`; those of the gallery name nobody.
        """
        names, chance = self.named(*self.evidence(specs, embeddings, unreadable))
        return self.submission(names[:, :-1]), self.chances(names, chance)

    def named(self, evidence: Evidence, queries: Dict[str, fusion.Embeddings], known_only: bool = False) -> Tuple[np.ndarray, np.ndarray]:
        """Of each photograph its five names, best first, and `new` once more (q, 6), and the chance of each (q, 6).

        With `known_only` a new individual is not among the five.
        """
        told, n = self.identification, len(self.asked)
        seen = Seen(evidence, queries, told)
        groups = self.asked.species.to_numpy(str) if told.by_species and "species" in self.asked else np.full(n, "")
        if told.by_species and "species" not in self.asked:
            print("metadata.csv: has no species; the share of new individuals holds over all photographs", file=sys.stderr)
        shift = np.zeros(n) if told.new_share is None or known_only else seen.shift(groups)
        columns, chance = zip(*(seen.best(part, shift[part], known_only) for part in seen.blocks()))
        return np.append(evidence.individuals, told.new).astype(object)[np.concatenate(columns)], np.concatenate(chance)

    def evidence(self, specs: List[recipe.Spec], embeddings: Dict[str, fusion.Embeddings], unreadable: Set[int]) -> Tuple[Evidence, Dict[str, fusion.Embeddings]]:
        """What is known, all of the gallery, and the embeddings of what is asked, from those of `table`."""
        n, queries, rows = len(self.asked), {}, {}
        lost = np.isin(np.arange(n, len(self.table)), list(unreadable))
        for spec in specs:
            parts = {key: part for key, part in embeddings[spec.name].items() if key in ("plain", "mirror")}
            queries[spec.name] = {key: part[:n] for key, part in parts.items()}
            if self.further is not None:
                rows[spec.name] = gallery.unit_rows(spec, {key: part[n:][~lost] for key, part in parts.items()})
        if self.further is None:
            return Evidence(specs, self.weights, self.known), queries
        new = np.flatnonzero(gallery.unseen(self.further, self.known))
        return Evidence(specs, self.weights, gallery.enlarged(self.known, self.further.drop(new[lost]), rows)), queries

    def submission(self, names: np.ndarray) -> pd.DataFrame:
        """Names (q, 5) as the competition's two columns."""
        images = self.asked.path.map(os.path.basename)
        return pd.DataFrame(dict(zip(self.identification.columns, (images, pd.Series(list(map(" ".join, names)), self.asked.index)))))

    def chances(self, names: np.ndarray, chance: np.ndarray) -> pd.DataFrame:
        """A row for each of the names (q, 6), the last a new individual; it is not told twice."""
        image, _ = self.identification.columns
        images = self.submission(names)[image].to_numpy()
        table = pd.DataFrame({image: np.repeat(images, names.shape[1]), "Id": names.ravel(), "probability": chance.ravel()})
        return table.drop_duplicates([image, "Id"], ignore_index=True)


class Seen:
    """The evidence about q photographs in blocks, so that memory does not grow with them."""

    def __init__(self, evidence: Evidence, queries: Dict[str, fusion.Embeddings], identification: identify.Identification) -> None:
        self.evidence, self.queries, self.identification = evidence, queries, identification
        self.count = len(queries[evidence.specs[0].name]["plain"])

    def blocks(self) -> Iterator[slice]:
        return identify.blocks(max(1, self.count), max(1, SCORES // (len(self.evidence.individuals) + 1)))

    def scores(self, part: slice) -> np.ndarray:
        queries = {name: {key: rows[part] for key, rows in embeddings.items()} for name, embeddings in self.queries.items()}
        probability = self.evidence.probability(queries, self.identification.temperature)
        return identify.merged(self.evidence.similarity(queries), probability, self.identification)

    def shift(self, groups: np.ndarray) -> np.ndarray:
        """What is added to the new column for the wanted share of new individuals among the first answers of each group."""
        leads = [identify.lead(self.scores(part)) for part in self.blocks()]
        return identify.shift_for_share(np.concatenate(leads), self.identification.new_share, groups)

    def best(self, part: slice, shift: np.ndarray, known_only: bool = False) -> Tuple[np.ndarray, np.ndarray]:
        """The columns (q, 6) of the five best answers and of the new individual, and the chance of each."""
        scores = self.scores(part)
        chance = identify.chances(scores, self.identification)
        scores[:, -1] += shift
        five = identify.best(scores[:, :-1] if known_only else scores)
        columns = np.column_stack([five, np.full(len(scores), scores.shape[1] - 1)])
        return columns, np.take_along_axis(chance, columns, axis=1)


def chances_of_ranking(submission: pd.DataFrame, image_of: pd.Series, specs: List[recipe.Spec], embeddings: Dict[str, fusion.Embeddings], identification: identify.Identification) -> pd.DataFrame:
    """The chance that a query's whale is not in its database, by the best row of each query: query_id, Id, probability.

    `image_of`: the photograph of each query_id. The similarity is the models' mean of (2 - d) / 2, as the chance was fitted. Of a query
    whose database holds no other photograph it is certain.
    """
    first = submission.drop_duplicates("query_id")
    row = pd.Series(np.arange(len(embeddings[specs[0].name]["image_id"])), embeddings[specs[0].name]["image_id"])
    query, match = row[image_of[first.query_id]].to_numpy(), row[first.database_image_id].to_numpy()
    total = sum(spec.predict.weight for spec in specs)
    similarity = np.zeros(len(first))
    for spec in specs:
        rows = gallery.unit_rows(spec, embeddings[spec.name])
        cosine = np.einsum("ij,ij->i", rows[query], rows[match])
        similarity += spec.predict.weight / total * (1 - np.sqrt(2 - 2 * cosine.clip(-1, 1)) / 2)
    chance = pd.Series(identify.chance_new_of_best(similarity, identification), first.query_id.to_numpy())
    queries = [*chance.index, *image_of.index.difference(chance.index, sort=False)]
    return pd.DataFrame({"query_id": queries, "Id": identification.new, "probability": chance.reindex(queries, fill_value=1.0).to_numpy()})
