"""What the demo is: a made-up population of belugas, its photographs and two scenarios, in the usual layout.

Writes metadata.csv, images/, query_scenarios.csv, queries/ and databases/; `belugas.py` and `photographs.py` draw.
The table has the long tail of the real one: many whales with one to three photographs, a few with dozens. Nothing is read.
Use: `python -m eval.importers demo --output DATA`; about 600 photographs of 115 whales in some 12 s on two cores.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from eval.files import progress, write_table

COLUMNS = ["image_id", "path", "height", "width", "viewpoint", "date", "timestamp", "whale_id", "encounter_id"]
YEARS = (2017, 2018, 2019)
SURVEY_DAYS = 10  # a year, in July and August
PASSES = 5  # times a day at which a whale can be met, two hours apart; a pass itself lasts under half an hour
MAX_IMAGES = 40


def write_demo(data: Path, seed: int = 0, n_whales: int = 115) -> Path:
    """Draws the demo into the directory `data`, byte for byte the same for the same seed, and returns it."""
    plan = plan_photographs(seed, n_whales)
    (data / "images").mkdir(parents=True)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        drawing = [pool.submit(draw_whale, whale, data, seed) for _, whale in plan.groupby("whale")]
        sizes = pd.concat([drawn.result() for drawn in progress(drawing, "draw whales")])
    metadata = plan.join(sizes)[COLUMNS]
    write_table(metadata, data / "metadata.csv")
    write_scenarios(metadata, data, seed)
    return data


def plan_photographs(seed: int, n_whales: int) -> pd.DataFrame:
    """One row a photograph, shuffled: the columns of metadata.csv without sizes, and numbers `whale` and `meeting`."""
    rng = np.random.default_rng([seed, 0])
    counts = image_counts(n_whales, rng)
    meetings = pd.concat([meet(whale, n, rng) for whale, n in enumerate(counts)], ignore_index=True)
    meetings["meeting"] = meetings.index
    plan = pd.concat([take_photographs(meeting, rng) for meeting in meetings.itertuples()], ignore_index=True)
    plan = plan.sample(frac=1, random_state=rng).reset_index(drop=True)
    plan["image_id"] = [f"train{number:04d}" for number in plan.index]
    plan["path"] = "images/" + plan.image_id + ".jpg"
    plan["whale_id"] = [f"whale{number:03d}" for number in pd.factorize(plan.whale)[0]]
    return number_encounters(plan)


def image_counts(n_whales: int, rng: np.random.Generator) -> np.ndarray:
    """Photographs per whale: the quantiles of a log-normal (median 3), so that every seed has the same long tail."""
    quantiles = np.array([NormalDist().inv_cdf((rank + .5) / n_whales) for rank in range(n_whales)])
    counts = np.clip(np.rint(3.1 * np.exp(1.05 * quantiles)), 1, MAX_IMAGES).astype(int)
    return rng.permutation(counts)


def meet(whale: int, n_images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Deals a whale's photographs to meetings at different times. In 2017 some meetings are seen from a boat, too."""
    sizes = []
    while sum(sizes) < n_images:
        sizes.append(min(1 + rng.poisson(.9), n_images - sum(sizes)))
    slots = rng.choice(len(YEARS) * SURVEY_DAYS * PASSES, len(sizes), replace=False)
    days, passes = np.divmod(np.sort(slots), PASSES)
    years, days = np.divmod(days, SURVEY_DAYS)
    first = pd.to_datetime([f"{YEARS[year]}-07-20 11:00" for year in years])
    minutes = passes * 120 + rng.integers(0, 30, len(sizes))
    start = first + pd.to_timedelta(days * 3, "D") + pd.to_timedelta(minutes, "min")
    boat = (years == 0) & (rng.random(len(sizes)) < .45)
    return pd.DataFrame({"whale": whale, "n_images": sizes, "start": start, "boat": boat})


def take_photographs(meeting, rng: np.random.Generator) -> pd.DataFrame:
    """The photographs of one meeting, seconds to minutes apart; a boat photographs one flank, the drone the back."""
    seconds = np.cumsum(rng.integers(2, 120, meeting.n_images))
    stamps = meeting.start + pd.to_timedelta(seconds, unit="s")
    flank = rng.choice(["left", "right"])
    lateral = meeting.boat & (rng.random(meeting.n_images) < .6)
    return pd.DataFrame({
        "whale": meeting.whale,
        "meeting": meeting.meeting,
        "viewpoint": np.where(lateral, flank, "top"),
        "date": stamps.strftime("%Y-%m-%d"),
        "timestamp": stamps.strftime("%Y-%m-%d %H:%M:%S"),
    })


def number_encounters(plan: pd.DataFrame) -> pd.DataFrame:
    """Adds `encounter_id`: a whale's photographs of one meeting and one viewpoint, numbered by time within the whale."""
    first = plan.groupby(["whale_id", "meeting", "viewpoint"], as_index=False).timestamp.min()
    number = first.sort_values(["whale_id", "timestamp"]).groupby("whale_id").cumcount().sort_index()
    first["encounter_id"] = [f"{whale}-{count:03d}" for whale, count in zip(first.whale_id, number)]
    return plan.merge(first.drop(columns="timestamp"), "left", ["whale_id", "meeting", "viewpoint"])


def draw_whale(photographs: pd.DataFrame, data: Path, seed: int) -> pd.DataFrame:
    """Draws and writes all photographs of one whale; returns their height and width under the index of `photographs`."""
    import cv2

    from eval.sources.belugas import make_whale
    from eval.sources.photographs import make_scene, photograph

    whale = make_whale(np.random.default_rng([seed, 1, photographs.whale.iloc[0]]))
    sizes = []
    for index, row in photographs.iterrows():
        scene = make_scene(row.viewpoint, np.random.default_rng([seed, 2, row.meeting]))
        rng = np.random.default_rng([seed, 3, index])
        picture = photograph(whale, scene, rng)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))]
        (data / row.path).write_bytes(cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes())
        sizes.append(picture.shape[:2])
    return pd.DataFrame(sizes, photographs.index, ["height", "width"])


def write_scenarios(metadata: pd.DataFrame, data: Path, seed: int) -> None:
    """Two scenarios of photographs from above: all years with the queries in the database, and 2019 against earlier years.

    Every query has a true match: another photograph of its whale in the database.
    """
    rng = np.random.default_rng([seed, 4])
    top = metadata[metadata.viewpoint == "top"]
    late = top.date >= "2019"
    scenarios = {
        "scenario01": (top[top.whale_id.duplicated(keep=False)], top),
        "scenario02": (top[late & top.whale_id.isin(top.whale_id[~late])], top[~late]),
    }
    for scenario, (queries, database) in scenarios.items():
        queries = np.sort(rng.choice(queries.image_id, min(100, len(queries)), replace=False))
        query_id = [f"{scenario}-{image}" for image in queries]
        write_table(pd.DataFrame({"query_id": query_id, "query_image_id": queries}), data / f"queries/{scenario}.csv")
        write_table(pd.DataFrame({"database_image_id": database.image_id}), data / f"databases/{scenario}.csv")
    paths = [(name, f"queries/{name}.csv", f"databases/{name}.csv") for name in scenarios]
    write_table(pd.DataFrame(paths, columns=["scenario_id", "queries_path", "database_path"]), data / "query_scenarios.csv")
