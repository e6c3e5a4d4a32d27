"""The demo competition: its bytes, its layout, its scenarios and how its command fails."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from eval import importers
from eval.sources.belugas import SKIN, Whale, make_whale
from eval.sources.demo import COLUMNS, image_counts, plan_photographs, write_demo
from eval.files import InputError
from eval.importers import whole_directory
from eval.sources.photographs import camera_matrix, draw_body, draw_spine, make_scene

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"), seed=3, n_whales=18)


@pytest.fixture(scope="module")
def metadata(demo):
    return pd.read_csv(demo / "metadata.csv")


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pictures(tmp_path):
    first, second, other = (write_demo(tmp_path / name, seed, n_whales=6) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert contents(first) == contents(second)
    picture = Path("images/train0000.jpg")
    assert contents(first)[picture] != contents(other)[picture]


def test_the_table_has_the_competitions_columns_and_unique_ids(metadata):
    assert list(metadata.columns) == COLUMNS
    assert metadata.image_id.is_unique and metadata.path.is_unique
    assert not metadata.isna().any().any()
    assert list(metadata.path) == [f"images/{image}.jpg" for image in metadata.image_id]


def test_every_row_has_its_photograph_in_the_stated_size_and_no_photograph_is_left_over(demo, metadata):
    assert {path.name for path in (demo / "images").iterdir()} == {Path(path).name for path in metadata.path}
    shapes = [cv2.imread(str(demo / path)).shape for path in metadata.path]
    assert shapes == [(row.height, row.width, 3) for row in metadata.itertuples()]
    assert metadata[["height", "width"]].stack().between(70, 400).all()


def test_photographs_from_above_are_portraits_and_lateral_ones_are_landscapes(metadata):
    assert ((metadata.viewpoint == "top") == (metadata.height > metadata.width)).all()


def test_an_encounter_is_one_whale_from_one_viewpoint_within_an_hour(metadata):
    stamps = pd.to_datetime(metadata.timestamp)
    for _, encounter in metadata.groupby("encounter_id"):
        assert encounter.whale_id.nunique() == encounter.viewpoint.nunique() == 1
        assert stamps[encounter.index].max() - stamps[encounter.index].min() < pd.Timedelta("1h")
    assert (metadata.encounter_id.str.rsplit("-", n=1).str[0] == metadata.whale_id).all()
    assert (metadata.timestamp.str[:10] == metadata.date).all()


def test_two_encounters_of_one_whale_from_one_viewpoint_are_over_an_hour_apart(metadata):
    spans = metadata.assign(stamp=pd.to_datetime(metadata.timestamp)).groupby(["whale_id", "viewpoint", "encounter_id"]).stamp
    for _, whale in spans.agg(["min", "max"]).groupby(level=[0, 1]):
        whale = whale.sort_values("min")
        gaps = whale["min"].to_numpy()[1:] - whale["max"].to_numpy()[:-1]
        assert (gaps > np.timedelta64(1, "h")).all()


def test_encounters_are_numbered_by_time_within_a_whale(metadata):
    first = metadata.groupby("encounter_id").timestamp.min()
    for _, whale in first.groupby(first.index.str.rsplit("-", n=1).str[0]):
        assert [int(name.rsplit("-", 1)[1]) for name in whale.index] == list(range(len(whale)))
        assert whale.is_monotonic_increasing


@pytest.mark.parametrize("seed", range(3))
def test_the_population_has_singletons_a_long_tail_and_lateral_views_in_2017_alone(seed):
    plan = plan_photographs(seed, 115)
    counts = plan.whale_id.value_counts()
    assert 560 <= len(plan) <= 640 and len(counts) == 115
    assert (counts == 1).sum() > 15 and counts.median() == 3 and counts.max() == 40
    lateral = plan.viewpoint != "top"
    assert set(plan.viewpoint) == {"top", "left", "right"} and .03 < lateral.mean() < .2
    assert set(plan.date[lateral].str[:4]) == {"2017"} and set(plan.date.str[:4]) == {"2017", "2018", "2019"}


def test_every_seed_deals_the_same_counts_in_another_order():
    first, second = (image_counts(50, np.random.default_rng(seed)) for seed in (0, 1))
    assert sorted(first) == sorted(second) and list(first) != list(second)


def test_one_scenario_has_its_queries_in_the_database_and_the_other_does_not(demo, metadata):
    whale = metadata.set_index("image_id").whale_id
    scenarios = pd.read_csv(demo / "query_scenarios.csv")
    assert list(scenarios.scenario_id) == ["scenario01", "scenario02"]
    for row, inside in zip(scenarios.itertuples(), (True, False)):
        queries, database = pd.read_csv(demo / row.queries_path), pd.read_csv(demo / row.database_path).database_image_id
        assert list(queries.query_id) == [f"{row.scenario_id}-{image}" for image in queries.query_image_id]
        assert len(queries) and queries.query_id.is_unique and database.is_unique
        assert (queries.query_image_id.isin(database) == inside).all()
        for image in queries.query_image_id:  # each query can be answered by another photograph
            assert (whale[database[database != image]] == whale[image]).any()


def test_white_triangles_lie_in_the_corners_of_some_photographs(demo, metadata):
    def white_corners(path):
        picture, ends = cv2.imread(str(demo / path)), (slice(4), slice(-4, None))
        return sum((picture[rows, columns] > 250).all() for rows in ends for columns in ends)

    corners = np.array([white_corners(path) for path in metadata.path])
    assert .1 < (corners > 0).mean() < .5
    assert corners.max() == 1


@pytest.mark.parametrize("flank, angle", [("left", -60), ("right", 60)])
def test_a_mark_on_a_flank_is_seen_from_above_and_from_its_own_side_only(flank, angle):
    plain = make_whale(np.random.default_rng(0))
    skin = np.ones(SKIN, np.float32)
    column = int((angle / 360 + .5) * SKIN[1])
    skin[300:340, column - 15:column + 15] = 0
    whale = Whale(skin, plain.ridge, plain.width, plain.tone)

    def seen(viewpoint):
        scene, rng = make_scene(viewpoint, np.random.default_rng(1)), np.random.default_rng(2)
        shape = (400, 140) if viewpoint == "top" else (140, 400)
        to_body, spine = camera_matrix(shape, scene, rng), draw_spine(scene, rng)
        colour, inside, _ = draw_body(np.zeros(shape, np.float32), to_body, spine, whale, scene, rng)
        return ((colour.max(-1) < .02) & (inside > .5)).sum() > 20

    opposite = {"left": "right", "right": "left"}[flank]
    assert [seen("top"), seen(flank), seen(opposite)] == [True, True, False]


def test_an_existing_output_is_refused_in_one_line_and_left_alone(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    command = [sys.executable, "-m", "eval.importers", "demo", "--output", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.count("\n") == 1 and str(tmp_path) in ran.stderr
    assert contents(tmp_path) == {Path("keep.txt"): b"mine"}


def test_a_seed_below_zero_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["importers", "demo", "--output", str(tmp_path / "data"), "--seed", "-1"])
    with pytest.raises(InputError, match="--seed -1: must be 0 or more"):
        importers.main()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_importer_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError), whole_directory(tmp_path / "data") as beside:
        (beside / "metadata.csv").write_text("half")
        raise InputError("a bad row")
    assert list(tmp_path.iterdir()) == []
