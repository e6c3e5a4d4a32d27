"""What a run answered: the tables of the page against plain loops over the files."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy_run
from eval.page import answers
from eval.files import InputError, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return toy_run.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def found(run):
    return answers.read(run, [0, 1])


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    run = toy_run.names(tmp_path_factory.mktemp("names"))
    return run, answers.read(run, [0])


@pytest.fixture
def spoilt(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_every_query_is_there_once_in_order_with_its_numbers(run, found):
    expected = [(fold, *row) for fold in (0, 1) for row in
                pd.read_csv(run / f"fold{fold}/per_query.csv")[["query_id", "whale_id", "strict", "n_pos"]].sort_values("query_id").itertuples(index=False)]
    assert list(found.queries[["fold", "query_id", "whale_id", "strict", "n_pos"]].itertuples(index=False, name=None)) == expected


def test_the_tiles_are_the_first_five_and_the_first_right_one_or_a_match_that_was_missed(run, found):
    for number, query in found.queries.iterrows():
        fold = run / "folds" / str(query.fold)
        truth = pd.read_csv(fold / "truth.csv").query("query_id == @query.query_id").database_image_id.tolist()
        rows = pd.read_csv(run / f"fold{query.fold}/submission.csv").query("query_id == @query.query_id")
        ordered = [row.database_image_id for row in sorted(rows.itertuples(), key=lambda row: (-row.score, row.database_image_id))]
        places = [place for place, image in enumerate(ordered, start=1) if image in truth]
        shown = sorted({*range(1, min(5, len(ordered)) + 1), *places[:1]})
        tiles = found.tiles[found.tiles["query"] == number]
        assert tiles.place.tolist() == shown + [0] * (not places)
        images = found.images.loc[tiles.image]
        assert images.image_id.tolist()[: len(shown)] == [ordered[place - 1] for place in shown] and (images.fold == query.fold).all()
        assert [image in truth for image in images.image_id] == tiles.right.tolist()
        assert query.first_right == places[0] if places else np.isnan(query.first_right)


def test_a_query_that_found_nothing_shows_a_match_that_it_missed(run, spoilt):
    rows, truth = pd.read_csv(spoilt / "fold0/submission.csv"), pd.read_csv(spoilt / "folds/0/truth.csv")
    right = pd.MultiIndex.from_frame(rows[truth.columns]).isin(pd.MultiIndex.from_frame(truth))
    write_table(rows[~right], spoilt / "fold0/submission.csv")
    found = answers.read(spoilt, [0])
    last = found.tiles.groupby("query").last()
    assert len(last) == len(found.queries) and (last.place == 0).all() and last.right.all() and found.queries.first_right.isna().all()
    for query, image in last.image.items():
        assert ((truth.query_id == found.queries.query_id[query]) & (truth.database_image_id == found.images.image_id[image])).any()


def test_images_carry_whale_encounter_date_viewpoint_and_file(run, found):
    labels = pd.read_csv(run / "folds/1/labels.csv").set_index("image_id")
    metadata = pd.read_csv(run / "folds/1/test/metadata.csv").set_index("image_id")
    images = found.images[found.images.fold == 1].set_index("image_id")
    assert set(images.index) == set(metadata.index)
    for name, table in {"whale_id": labels, "encounter_id": labels, "date": metadata, "viewpoint": metadata}.items():
        assert (images[name] == table[name].loc[images.index]).all()
    assert all(Path(file) == run / "folds/1/test" / metadata.path[image] for image, file in images.file.items())
    queries = found.queries[found.queries.fold == 1]
    assert (queries.viewpoint.to_numpy() == metadata.viewpoint[queries.query_image_id].to_numpy()).all()
    assert (found.images.image_id[queries.image].to_numpy() == queries.query_image_id.to_numpy()).all()


def test_names_are_tiles_with_probability_and_the_first_training_photograph_of_the_individual(named):
    run, found = named
    truth, train = pd.read_csv(run / "folds/0/truth.csv").set_index("Image").Id, pd.read_csv(run / "folds/0/train/metadata.csv")
    given = pd.read_csv(run / "fold0/submission.csv").set_index("Image").Id
    sure = pd.read_csv(run / "fold0/probabilities.csv").set_index(["Image", "Id"]).probability
    assert found.of_names and (found.queries.whale_id == "").any() and found.queries.first_right.isna().any()
    for number, query in found.queries.iterrows():
        tiles, label, names = found.tiles[found.tiles["query"] == number], truth[query.query_id], given[query.query_id].split()
        assert tiles.name.tolist() == names + [label] * (label not in names)
        assert tiles.right.tolist() == [name == label for name in tiles.name]
        assert tiles.score.tolist()[:5] == [sure[query.query_id, name] for name in names]
        for tile in tiles.itertuples():
            shown = None if tile.image < 0 else found.images.image_id[tile.image]
            assert shown == (None if tile.name == "new_whale" else train.image_id[train.whale_id == tile.name].iloc[0])
        assert found.images.file[query.image].endswith("/" + query.query_id)


@pytest.mark.parametrize("name", ["best", "worst", "changed"])
def test_the_orders_are_those_of_a_sort_of_tuples(run, tmp_path, name):
    found = answers.read(run, [0, 1], toy_run.other(run, tmp_path / "other"))
    sure = found.tiles[found.tiles.place == 1].set_index("query").score
    key = {"best": -found.queries.strict, "worst": found.queries.strict, "changed": -(found.queries.strict - found.queries.before).abs()}[name]
    expected = sorted(found.queries.index, key=lambda row: (key[row], -found.queries.n_pos[row], -sure[row], row))
    assert answers.orders(found)[name].tolist() == expected


def test_the_change_is_against_the_other_run_or_else_against_the_first_model_alone(run, spoilt, tmp_path):
    other = toy_run.other(run, tmp_path / "other")
    found = answers.read(run, [0, 1], other)
    for query in found.queries.itertuples():
        theirs = pd.read_csv(other / f"fold{query.fold}/per_query.csv").set_index("query_id").strict
        assert query.before == theirs[query.query_id]
    assert found.baseline == "other" and answers.read(run, [0, 1]).baseline == ""
    ids = pd.read_csv(spoilt / "fold0/per_query.csv").query_id
    write_table(pd.DataFrame({"query_id": ids[::-1], "first": np.linspace(0, 1, len(ids)), "first+second": 0}), spoilt / "fold0/ensembles.csv")
    alone = answers.read(spoilt, [0, 1])
    assert alone.baseline == "first alone" and alone.queries.before[alone.queries.fold == 1].isna().all()
    assert dict(zip(alone.queries.query_id, alone.queries.before[alone.queries.fold == 0])) == dict(zip(ids[::-1], np.linspace(0, 1, len(ids))))


def test_a_run_of_other_queries_is_refused(run, spoilt):
    path = spoilt / "fold1/per_query.csv"
    write_table(pd.read_csv(path).iloc[1:], path)
    with pytest.raises(InputError, match="its queries are not those of") as told:
        answers.read(run, [0, 1], spoilt)
    assert str(told.value).startswith(str(path))


@pytest.mark.parametrize("gone", ["fold*/submission.csv", "folds/*/truth.csv", "folds/*/labels.csv", "folds/*/test/metadata.csv"])
def test_queries_are_listed_whatever_else_is_absent(spoilt, found, gone):
    for path in spoilt.glob(gone):
        path.unlink()
    assert answers.read(spoilt, [0, 1]).queries.strict.tolist() == found.queries.strict.tolist()


@pytest.mark.parametrize("path", ["../0/labels.csv", "/etc/passwd", "images/../../../x.jpg", "C:\\x.jpg", "..\\x.jpg"])
def test_a_photograph_outside_the_fold_is_refused(spoilt, path):
    table = pd.read_csv(spoilt / "folds/0/test/metadata.csv")
    table.loc[2, "path"] = path
    write_table(table, spoilt / "folds/0/test/metadata.csv")
    with pytest.raises(InputError, match="line 4: path .* leads out of " + re.escape(str(spoilt / "folds/0/test"))):
        answers.read(spoilt, [0])


def test_nothing_is_read_where_nothing_was_scored(tmp_path):
    assert answers.read(tmp_path, [0]) is None
