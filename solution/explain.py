"""Where was it seen? Heat maps of pairs of photographs, a query and what a submission answered it with.

    python -m solution.explain --data FOLDS/0/test --weights WEIGHTS --submission submission.csv --output EXPLAIN

Reads the submission, the photographs of DATA (of names also those of --gallery) and the models of WEIGHTS. Writes EXPLAIN/pairs.csv
(query_id,query_image_id,database_image_id,place,similarity,picture) and a JPEG a pair: query and match side by side, above
as they are, below grey under the heat of their similarity, on one scale for both. Expect about 10 s for 24 pairs and two small models.
An earlier EXPLAIN is replaced as a whole; a photograph that cannot be read is told, and its pairs are left out.
"""

import argparse
import os
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pandas as pd

from solution import embed, images, recipe
from solution.device import chosen, default_workers
from solution.files import Complaints, InputError, natural, progress, run, whole_directory, write_table
from solution.overlay import Heats, draw
from solution.pairs import Candidates, Wish, of_names, of_ranking

BLOCK = 8  # pairs whose photographs, 16 at most and half of a batch of embed.py, run together and have their feature maps held
COLUMNS = ["query_id", "query_image_id", "database_image_id", "place", "similarity", "picture"]


def explained(candidates: Candidates, heat, workers: int, complaints: Complaints) -> Tuple[pd.DataFrame, Heats]:
    """The best readable candidate of each query and place, with its `similarity`, and the heat of these pairs."""
    from torch.utils.data import DataLoader

    views, photographs = embed.views(heat.specs), candidates.photographs
    blocks = np.array_split(candidates.table[["query", "match"]].to_numpy(), -(-len(candidates.table) // BLOCK))
    wanted = [np.unique(block) for block in blocks]
    loader = DataLoader(images.Readable(photographs.path, views, photographs.box), batch_sampler=[rows.tolist() for rows in wanted], num_workers=workers)
    cosines, heats, unreadable = [], [], set()
    for block, rows, (squares, problems) in zip(blocks, wanted, progress(loader, "heat", len(blocks))):
        unreadable.update((row, problem) for row, problem in zip(rows.tolist(), problems) if problem)
        cosine, hot = heat([squares[views.index(embed.view_of(spec))] for spec in heat.specs], np.searchsorted(rows, block))
        cosines.append(cosine), heats.append(hot)
    table = candidates.table.assign(similarity=np.concatenate(cosines))
    best = best_of_each(table, sorted(unreadable), complaints)
    return table.loc[best], {margin: np.concatenate([hot[margin] for hot in heats])[best] for margin in heats[0]}


def best_of_each(table: pd.DataFrame, unreadable: List[Tuple[int, str]], complaints: Complaints) -> np.ndarray:
    """The rows of the most similar candidate of each query and place, in their order."""
    for _, problem in unreadable:
        complaints.add(problem)
    rows = [row for row, _ in unreadable]
    table = table[~(table["query"].isin(rows) | table.match.isin(rows))]
    if table.empty:
        raise InputError("no pair has two photographs that can be read; there is nothing to explain")
    return np.sort(table.groupby(["query_id", "place"]).similarity.idxmax().to_numpy())


def explains(folder: Path) -> bool:
    """Whether the folder holds what this command writes and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else set()
    if "pairs.csv" not in names:
        return False
    header = (folder / "pairs.csv").read_bytes().split(b"\n")[0].decode(errors="replace").strip()
    return header == ",".join(COLUMNS) and all(name == "pairs.csv" or name.endswith(".jpg") for name in names)


def asked_for(args: argparse.Namespace, complaints: Complaints) -> Candidates:
    if args.pairs == 0:
        raise InputError("--pairs: must be 1 or more")
    wish = Wish(args.queries.split(",") if args.queries else None, args.pairs)
    if args.gallery:
        return of_names(args.data, args.submission, args.weights, args.gallery, wish, complaints)
    if not (args.data / "query_scenarios.csv").is_file():
        raise InputError(f"{args.data}: has no query_scenarios.csv; for names give --gallery DATA, labelled photographs of the individuals")
    return of_ranking(args.data, args.submission, wish, complaints)


def explain(args: argparse.Namespace) -> str:
    """Writes the explanation; returns what to say of it."""
    complaints = Complaints(strict=False)
    candidates = asked_for(args, complaints)
    if os.path.lexists(args.output) and not explains(args.output):
        raise InputError(f"{args.output}: is there already and is no explanation; remove it or choose another --output")
    with whole_directory(args.output, replace=True) as folder:
        from solution.heat import Heat

        device = chosen(args.device)
        workers = default_workers(device) if args.workers is None else args.workers
        table, heats = explained(candidates, Heat(recipe.specs(args.weights), args.weights, device), workers, complaints)
        write(table, candidates.photographs, heats, folder)
    return f"{args.output}: {len(table)} pairs of {table.query_id.nunique()} queries"


def write(table: pd.DataFrame, photographs: pd.DataFrame, heats: Heats, folder: Path) -> None:
    """pairs.csv and the pictures of all pairs; `heats` by margin (p, 2, g, g)."""
    rows = list(photographs.itertuples(index=False))
    sides = [(rows[query], rows[match]) for query, match in table[["query", "match"]].to_numpy()]
    names = [f"pair{number:03d}.jpg" for number in range(1, len(sides) + 1)]
    for number, both in enumerate(progress(sides, "pictures")):
        draw(both, {margin: heat[number] for margin, heat in heats.items()}, folder / names[number])
    ids = {"query_image_id": [query.image_id for query, _ in sides], "database_image_id": [match.image_id for _, match in sides]}
    told = table.assign(similarity=table.similarity.map("{:.6f}".format), picture=names, **ids)
    write_table(told[COLUMNS], folder / "pairs.csv")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Show where the photographs of a query and of its first answers are alike to the models.",
        epilog="example: python -m solution.explain --data runs/demo/folds/0/test --weights runs/demo/fold0/weights --submission runs/demo/fold0/submission.csv --output explain",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory that the submission answers")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--submission", type=Path, required=True, help="query_id,database_image_id,score; with --gallery a file of names")
    parser.add_argument("--output", type=Path, required=True, help="folder for pairs.csv and the pictures; an earlier one is replaced")
    parser.add_argument("--gallery", type=Path, metavar="DATA", help="labelled photographs of the individuals that a submission names")
    parser.add_argument("--queries", help="query ids separated by commas (default: evenly spread ones, two answers each)")
    parser.add_argument("--pairs", type=natural, default=24, help="at most (default: 24)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=natural, help="processes that decode (default: by device)")
    print(explain(parser.parse_args()))


if __name__ == "__main__":
    run(main, relief="lower --workers or --pairs")
