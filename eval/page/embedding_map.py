"""A map of a fold's embeddings: photographs that the models find alike lie near each other.

Reads RUN/fold*/embeddings/*.npz (`image_id`, `plain`, `mirror`) and RUN/folds/*/labels.csv of the first fold that has both.
Writes nothing; `figure(run, [0, 1])` takes a few seconds: at most 1,500 photographs, whole whales of them, by PCA to 50 numbers
and then t-SNE to two. Same embeddings and machine, same bytes. Every point carries data-image and data-fold for the page's script.
"""

from html import escape
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd

from eval.page import charts
from eval.page.charts import Figure
from eval.files import InputError, read_table

MOST, NAMED, STEPS = 1500, 6, 500  # photographs that are drawn; individuals that are told apart; of the descent
ALIKE = 1e-5  # numbers of unit rows that differ by less are rounding
WIDTH, EDGE, LINE = 400, 12, 20  # of the drawing: side, margin, height of a line of its legend
SHAPES = ["M-4-4H4V4H-4Z", "M0-5L5 4H-5Z", "M0-5.5L5.5 0L0 5.5L-5.5 0Z", "M0 5L5-4H-5Z", "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
          "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z"]
TITLE = "Embedding map"


def figure(run: Path, folds: list[int]) -> Figure:
    for fold in folds:
        paths, labels = sorted((run / f"fold{fold}" / "embeddings").glob("*.npz")), run / "folds" / str(fold) / "labels.csv"
        if paths and labels.is_file():
            return of_fold(fold, paths, labels)
    return charts.nothing("map", TITLE, "No embeddings with labels: solution.predict --embeddings writes fold*/embeddings/, "
                          "eval.folds folds/*/labels.csv.")


def of_fold(fold: int, paths: list[Path], labels: Path) -> Figure:
    image_id, rows = read(paths)
    known = read_table(labels, ["image_id", "whale_id"]).drop_duplicates("image_id").set_index("image_id").whale_id
    whale = known.reindex(image_id).fillna("").to_numpy(object)
    chosen = choose(whale)
    if len(chosen) < 4:
        return charts.nothing("map", TITLE, f"Fold {fold} has embeddings of {len(chosen)} photographs; a map takes four.")
    image_id, rows, whale = image_id[chosen], rows[chosen], whale[chosen]
    if np.allclose(rows, rows[0], atol=ALIKE):
        return charts.nothing("map", TITLE, f"All photographs of fold {fold} have the same embedding, so there is nothing to lay apart.")
    named = list(most_photographed(whale))
    part = f", {len(chosen):,} of them, whole individuals" if len(chosen) < len(known) else ""
    caption = (f"Each point is a photograph of fold {fold}{part}; near ones are alike to the models (t-SNE; distances between groups say little). "
               f"The {len(named)} individuals with most photographs have a shape and a colour each, all others are dots.")
    return Figure("map", TITLE, caption, draw(image_id, whale, named, flat(rows), fold), in_words(rows, whale, named))


def read(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) and one L2-normalised row an image (n, d): plain and mirror embeddings of all models, each normalised, joined."""
    ids, parts = None, []
    for path in paths:
        own, rows = of_model(path)
        ids = own if ids is None else ids
        if not np.array_equal(own, ids):
            raise InputError(f"{path}: other photographs than {paths[0].name}; predict this fold again")
        parts.append(unit(np.nan_to_num(rows, posinf=0, neginf=0)))
    return ids, unit(np.concatenate(parts, axis=1))


def of_model(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) and the plain and mirror embeddings side by side (n, d)."""
    try:
        check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            ids = np.array(arrays["image_id"].tolist(), str)  # no text of numbers that are no characters
            rows = np.concatenate([arrays[name] for name in ("plain", "mirror") if name == "plain" or name in arrays], axis=1).astype(np.float32)
    except Exception as error:  # zipfile, zlib and numpy each have kinds of their own for damaged bytes
        raise InputError(f"{path}: not embeddings (image_id, plain, mirror): {' '.join(str(error).split())[:200]}; predict this fold again") from None
    if rows.ndim != 2 or ids.shape != rows.shape[:1]:
        raise InputError(f"{path}: {ids.shape} image ids and embeddings of {rows.shape}; predict this fold again")
    return ids, rows


def check_size(path: Path) -> None:
    """ValueError where the arrays of a file are packed, and so may be a thousand times as large, or tell of more than it holds."""
    if not path.is_file():
        raise ValueError("it is no plain file")
    with ZipFile(path) as file:
        entries = file.infolist()
        if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it is compressed, or tells of more than it holds; write it with numpy.savez")


def unit(rows: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]  # beyond float32 for large ones
    return (rows / np.where(norm > 0, norm, 1)).astype(np.float32)


def choose(whale: np.ndarray, most: int = MOST) -> np.ndarray:
    """Rows of whole whales, those with most photographs first and then by seed, as long as they are `most` rows or fewer."""
    group = np.where(whale == "", [f"/{row}" for row in range(len(whale))], whale)  # an unknown whale stands alone
    number, names = pd.factorize(group)
    size, turn = np.bincount(number), np.random.default_rng(0).permutation(len(names))
    turn[[list(names).index(name) for name in most_photographed(whale)]] = -1
    order = np.argsort(turn, kind="stable")
    taken = order[np.cumsum(size[order]) <= most]
    return np.flatnonzero(np.isin(number, taken))


def most_photographed(whale: np.ndarray) -> pd.Index:
    counts = pd.Series(whale[whale != ""], dtype=object).value_counts()
    return counts[counts > 1].reset_index().sort_values(["count", "index"], ascending=[False, True])["index"].head(NAMED)


def flat(rows: np.ndarray) -> np.ndarray:
    """(n, d) -> places (n, 2). One thread and fixed seeds, because sums in another order would draw another map."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        fewer = PCA(min(50, *rows.shape), random_state=0, svd_solver="randomized").fit_transform(rows)
        start = "pca" if fewer.shape[1] > 1 else "random"
        return TSNE(perplexity=min(30, (len(rows) - 1) / 3), max_iter=STEPS, init=start, random_state=0, n_jobs=1).fit_transform(fewer)


def draw(image_id: np.ndarray, whale: np.ndarray, named: list[str], places: np.ndarray, fold: int) -> str:
    low, span = places.min(axis=0), np.ptp(places, axis=0).max() or 1
    x, y = (EDGE + (places - low) / span * (WIDTH - 2 * EDGE)).T
    height = y.max() + EDGE + LINE * ((len(named) + 2) // 2)
    number = pd.Index(named).get_indexer(whale)
    points = [point(*row, fold) for row in sorted(zip(number, x, y, image_id, whale), key=lambda row: row[0])]
    legend = "".join(f'<g transform="translate({EDGE + 195 * (place % 2)} {y.max() + EDGE + LINE * (place // 2 + 0.6):.1f})">{shape(place)}'
                     f'<text x="10" y="5" font-size="14" fill="currentColor">{escape(charts.clip(name, 20))}</text></g>'
                     for place, name in enumerate(named))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
            f'class="map">{"".join(points)}<g aria-hidden="true">{legend}</g></svg>')


def point(number: int, x: float, y: float, image_id: str, whale: str, fold: int) -> str:
    """A circle to point at, above it for the named individuals their shape."""
    title = f"<title>{escape(clean(image_id))}: {escape(clean(whale) or 'unknown individual')}</title>"
    data = f'data-image="{escape(clean(image_id))}" data-fold="{fold}"'
    if number < 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="currentColor" fill-opacity=".35" {data}>{title}</circle>'
    return (f'<g transform="translate({x:.1f} {y:.1f})">{shape(number)}'
            f'<circle r="6" fill="transparent" {data}>{title}</circle></g>')


def shape(number: int) -> str:
    return f'<path d="{SHAPES[number]}" style="fill:var(--series-{number + 1})"/>'


def clean(text: str) -> str:
    return charts.clip(text, 200)


def in_words(rows: np.ndarray, whale: np.ndarray, named: list[str]) -> list[str]:
    """How often the nearest other photograph, by cosine and not on the map, shows the same individual."""
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -2)
    same = (whale[similarity.argmax(axis=1)] == whale) & (whale != "")
    told = lambda chosen: f"{same[chosen].sum():,} of {chosen.sum():,} photographs have one of the same individual as the nearest"
    groups = {clean(name): whale == name for name in named} | {"all others": ~np.isin(whale, named) & (whale != ""), "all": whale != ""}
    return [f"{name}: {told(chosen)}" for name, chosen in groups.items() if chosen.any()]
