"""The metrics against the table of measured behaviour, a naive loop, scikit-learn and properties."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest

from eval import metrics


def official(hits, scores=None, n_pos=1):
    """Average precision of one query whose rows are in ranking order."""
    hits = np.array(hits, bool)
    scores = np.linspace(0.9, 0.1, len(hits)) if scores is None else np.array(scores, float)
    return metrics.average_precision(np.zeros(len(hits), int), scores, hits, np.array([n_pos]))[0]


def at(n, *ranks):
    return [rank in ranks for rank in range(1, n + 1)]


@pytest.mark.parametrize("hits, scores, n_pos, expected", [
    (at(20, 1, 3, 10), None, 3, (1 + 2 / 3 + 3 / 10) / 3),
    (at(20, *range(1, 21)), None, 40, 1.0),
    (at(20, *range(1, 11)), None, 40, 0.5),
    (at(20, 1), None, 5, 0.2),
    (at(20, 1), [0.5] * 20, 1, 0.05),
    (at(20, 11), [0.5] * 20, 1, 0.05),
    (at(20, 20), [0.5] * 20, 1, 0.05),
    (at(4, 2), [0.9, 0.5, 0.5, 0.1], 1, 1 / 3),
    (at(4, 3), [0.9, 0.5, 0.5, 0.1], 1, 1 / 3),
    (at(25, 23), None, 1, 1 / 23),
    (at(25, *range(1, 26)), None, 25, 1.25),
    (at(2, 1, 2), [0.9, 0.9], 1, 2.0),
    (at(2, 1, 2), [0.9, 0.8], 1, 2.0),
    (at(20), None, 3, 0.0),
])
def test_average_precision_does_what_was_measured(hits, scores, n_pos, expected):
    assert official(hits, scores, n_pos) == pytest.approx(expected, abs=1e-12)


def random_rankings(n, seed=0):
    """n queries: 1 to 30 rows in ranking order, about half of them with ties, 1 to 40 positives; some have no hit."""
    rng = np.random.default_rng(seed)
    query, score, hit, n_pos = [], [], [], np.zeros(n, int)
    for number in range(n):
        rows = rng.integers(1, 31)
        values = rng.uniform(size=rows) if rng.uniform() < 0.5 else rng.integers(1, 6, rows) / 5
        found = rng.uniform(size=rows) < rng.choice([0, 0.2, 0.8, 1])
        n_pos[number] = max(found.sum(), 1) + rng.integers(0, 10)
        query += [number] * rows
        score += sorted(values, reverse=True)
        hit += list(found)
    return np.array(query), np.array(score), np.array(hit), n_pos


def naive_average_precision(scores, hits, n_pos):
    total = 0
    for score in set(scores):
        upto = [hit for other, hit in zip(scores, hits) if other >= score]
        in_group = sum(hit for other, hit in zip(scores, hits) if other == score)
        total += in_group * sum(upto) / len(upto)
    return total / min(n_pos, 20)


def test_average_precision_agrees_with_a_naive_loop_and_with_scikit_learn_on_ten_thousand_rankings():
    from sklearn.metrics import average_precision_score
    query, score, hit, n_pos = random_rankings(10_000)
    ours = metrics.average_precision(query, score, hit, n_pos)
    bounds = np.searchsorted(query, np.arange(10_001))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no positive among the rows
        for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:])):
            scores, hits, positives = score[start:end], hit[start:end], n_pos[number]
            theirs = average_precision_score(hits, scores) * hits.sum() / min(positives, 20)
            assert abs(ours[number] - theirs) < 1e-12
            assert abs(ours[number] - naive_average_precision(scores.tolist(), hits.tolist(), positives)) < 1e-12


def test_a_query_without_rows_has_no_average_precision():
    values = metrics.average_precision(np.array([1]), np.array([0.5]), np.array([True]), np.array([1, 1, 1]))
    np.testing.assert_array_equal(values, [np.nan, 1, np.nan])


def test_no_rows_at_all_are_fine():
    nothing, no_hit, n_pos = np.zeros(0, int), np.zeros(0, bool), np.array([2, 3])
    assert np.isnan(metrics.average_precision(nothing, np.zeros(0), no_hit, n_pos)).all()
    assert not metrics.average_precision_of_first(nothing, no_hit, n_pos).any()
    assert not metrics.reciprocal_rank_of_individual(nothing, nothing, n_pos).any()
    assert not metrics.top1(nothing, no_hit, 2).any()


def test_the_ranking_is_by_query_then_falling_score_then_id():
    rng = np.random.default_rng(1)
    query, score, image = rng.integers(5, size=200), rng.integers(4, size=200) / 4, rng.permutation(200)
    expected = sorted(range(200), key=lambda row: (query[row], -score[row], image[row]))
    assert metrics.ranking(query, score, image).tolist() == expected


def test_the_first_five_measures_agree_with_naive_loops():
    rng = np.random.default_rng(2)
    query, _, hit, n_pos = random_rankings(500, seed=3)
    whale, wanted = rng.integers(8, size=len(query)), rng.integers(8, size=500)
    at_5 = metrics.average_precision_of_first(query, hit, n_pos)
    individual = metrics.reciprocal_rank_of_individual(query, whale, wanted)
    top1 = metrics.top1(query, hit, 500)
    for number in range(500):
        hits, whales = hit[query == number], whale[query == number]
        precisions = [hits[:k + 1].mean() for k in range(min(5, len(hits))) if hits[k]]
        assert at_5[number] == pytest.approx(sum(precisions) / min(n_pos[number], 5), abs=1e-12)
        five = list(dict.fromkeys(whales))[:5]
        expected = 1 / (five.index(wanted[number]) + 1) if wanted[number] in five else 0
        assert individual[number] == expected
        assert top1[number] == hits[0]


@pytest.mark.parametrize("labels, expected", [
    ([7, 1, 2, 3, 4], 1), ([1, 7, 2, 3, 4], 1 / 2), ([1, 2, 3, 4, 7], 1 / 5), ([1, 2, 3, 4, 5], 0), ([-1] * 5, 0),
    ([1, 7, 7, 7, 7], 1 / 2), ([7, 7, 7, 7, 7], 1), ([7, -1, -1, -1, -1], 1),
])
def test_label_average_precision_is_one_over_the_place_of_the_label(labels, expected):
    assert metrics.label_average_precision(np.array([labels]), np.array([7]))[0] == expected


def test_an_unknown_whale_is_a_group_of_its_own():
    groups = metrics.whale_groups(pd.Series(["w1", "", "w2", "w1", ""]))
    assert groups[0] == groups[3] and len(set(groups)) == 4


def test_the_bootstrap_agrees_with_a_naive_loop_over_whales():
    rng = np.random.default_rng(4)
    whale, values = rng.integers(30, size=200), rng.uniform(size=200)
    table, draws = pd.DataFrame({"whale": whale, "value": values}), np.random.default_rng(0)
    by_whale = [part.value.tolist() for _, part in table.groupby("whale")]
    means = []
    for _ in range(1000):
        drawn = [value for number in draws.integers(len(by_whale), size=len(by_whale)) for value in by_whale[number]]
        means.append(sum(drawn) / len(drawn))
    assert metrics.bootstrap_interval(values, whale) == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=1e-12)


def test_the_bootstrap_gives_the_same_numbers_twice():
    values, whale = np.random.default_rng(5).uniform(size=50), np.arange(50) // 2
    assert metrics.bootstrap_interval(values, whale) == metrics.bootstrap_interval(values, whale)
    assert metrics.bootstrap_interval(values, whale) != metrics.bootstrap_interval(values, whale, seed=1)


def test_repeating_every_query_of_a_whale_adds_no_certainty():
    values, whale = np.random.default_rng(6).uniform(size=60), np.arange(60)
    assert metrics.bootstrap_interval(np.repeat(values, 5), np.repeat(whale, 5)) == pytest.approx(metrics.bootstrap_interval(values, whale))


def exact_p_value(difference, whale):
    """Every pattern of signs in a plain loop; sums that differ in the last digits are equal."""
    totals = [difference[whale == number].sum() for number in np.unique(whale)]
    flipped = [abs(sum(sign * total for sign, total in zip(signs, totals))) for signs in itertools.product([-1, 1], repeat=len(totals))]
    return np.mean([value >= abs(sum(totals)) - 1e-9 for value in flipped])


@pytest.mark.parametrize("seed", range(6))
def test_the_p_value_of_few_whales_is_that_of_all_sign_patterns(seed):
    rng = np.random.default_rng(seed)
    whale = rng.permutation(np.repeat(np.arange(10), rng.integers(1, 6, 10)))
    difference = rng.normal(0.3, 1, len(whale)) if seed % 2 else rng.integers(-1, 3, len(whale)) / 4  # with and without ties
    assert metrics.sign_flip_p_value(difference, whale) == pytest.approx(exact_p_value(difference, whale), abs=1e-12)


def test_a_whale_that_does_not_differ_changes_nothing():
    difference, whale = np.random.default_rng(8).normal(0.2, 1, 12), np.arange(12)
    more = np.concatenate([difference, np.zeros(30)]), np.concatenate([whale, 12 + np.arange(30)])
    assert metrics.sign_flip_p_value(*more) == metrics.sign_flip_p_value(difference, whale)


@pytest.mark.parametrize("whales", range(1, 7))
def test_no_p_value_is_smaller_than_the_number_of_whales_allows(whales):
    assert metrics.sign_flip_p_value(np.ones(3 * whales), np.arange(3 * whales) % whales) == 2 / 2 ** whales


def test_random_flips_come_near_the_exact_p_value():
    difference, whale = np.random.default_rng(9).normal(0.3, 1, 16), np.arange(16)  # 2^16 patterns, 10,000 of them at random
    exact = exact_p_value(difference, whale)
    assert abs(metrics.sign_flip_p_value(difference, whale) - exact) < 4 * np.sqrt(exact * (1 - exact) / 10_000)


def naive_interval(values, whale):
    """The formula with the matrices written out, a G x n residual maker and the working variance of n x n."""
    from scipy.stats import t
    names, n = np.unique(whale), len(values)
    member = (whale == names[:, None]).astype(float)
    share, rest = member.sum(axis=1) / n, values - values.mean()
    standard_error = np.sqrt(((member @ rest) ** 2 / (1 - share)).sum()) / n
    same = member.T @ member - np.eye(n)
    alike = max((rest @ same @ rest) / same.sum() / (rest @ rest / n), 0.05)
    residual = member @ (np.eye(n) - 1 / n) / np.sqrt(1 - share)[:, None]
    variance = residual @ (np.eye(n) + alike * same) @ residual.T
    df = np.trace(variance) ** 2 / np.trace(variance @ variance)
    return values.mean() + standard_error * t.ppf([0.025, 0.975], df)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_by_whale_is_the_formula_written_out(seed):
    rng = np.random.default_rng(seed)
    whale = np.repeat(np.arange(20), rng.integers(1, 15, 20)) * 7
    values = rng.normal(0, 0.2, 200)[whale] + rng.normal(0.1, 0.2, len(whale)) * (rng.uniform(size=len(whale)) < 0.6)
    order = rng.permutation(len(whale))
    assert metrics.whale_interval(values[order], whale[order]) == pytest.approx(naive_interval(values, whale), abs=1e-12)


def test_whales_of_one_query_each_have_the_interval_of_students_t():
    from scipy.stats import ttest_1samp
    values = np.random.default_rng(10).uniform(size=40)
    expected = ttest_1samp(values, 0).confidence_interval()
    assert metrics.whale_interval(values, np.arange(40)) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_the_interval_turns_round_to_the_last_digit_and_one_whale_has_none():
    rng = np.random.default_rng(11)
    values, whale = rng.normal(0.1, 1, 90), rng.integers(30, size=90)
    low, high = metrics.whale_interval(values, whale)
    assert metrics.whale_interval(-values, whale) == [-high, -low] and low < values.mean() < high
    assert metrics.whale_interval(values, np.zeros(90)) is None and metrics.whale_interval(np.zeros(90), whale) == [0, 0]


def test_no_difference_at_all_has_a_p_value_of_one():
    assert metrics.sign_flip_p_value(np.zeros(20), np.arange(20)) == 1


@pytest.mark.benchmark_suite
def test_average_precision_of_a_whole_competition(benchmark):
    rng = np.random.default_rng(0)
    query, hit, n_pos = np.repeat(np.arange(4419), 20), rng.uniform(size=88_380) < 0.3, rng.integers(20, 40, 4419)
    score = -np.sort(-rng.uniform(size=(4419, 20)), axis=1).ravel()
    values = benchmark(metrics.average_precision, query, score, hit, n_pos)
    assert len(values) == 4419 and benchmark.stats["median"] < 0.1


def random_probabilities(seed, n=200):
    """Probabilities with many ties, some 0 and 1, and what came out."""
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, 21, n) / 20 if seed % 2 else rng.uniform(size=n)
    return probability, rng.uniform(size=n) < probability ** 2


@pytest.mark.parametrize("seed", range(6))
def test_the_area_under_roc_is_the_share_of_pairs_in_order_and_scikit_learns(seed):
    from sklearn.metrics import roc_auc_score
    score, positive = random_probabilities(seed)
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    assert metrics.area_under_roc(score, positive) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert metrics.area_under_roc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


def test_the_area_under_roc_of_one_kind_alone_is_nan():
    assert np.isnan(metrics.area_under_roc(np.array([0.1, 0.2]), np.array([True, True])))
    assert np.isnan(metrics.area_under_roc(np.array([0.1, 0.2]), np.array([False, False])))


@pytest.mark.parametrize("seed", range(6))
def test_brier_and_calibration_error_are_the_loops_written_out(seed):
    probability, outcome = random_probabilities(seed)
    squares = [(p - bool(o)) ** 2 for p, o in zip(probability, outcome)]
    error = 0
    for number in range(1, 11):
        lower, upper = (number - 1) / 10, number / 10
        inside = [k for k, p in enumerate(probability) if lower < p <= upper or number == 1 and p == 0]
        if inside:
            gap = abs(sum(outcome[k] for k in inside) / len(inside) - sum(probability[k] for k in inside) / len(inside))
            error += gap * len(inside) / len(probability)
    assert metrics.brier_score(probability, outcome) == pytest.approx(sum(squares) / len(squares), abs=1e-12)
    assert metrics.calibration_error(probability, outcome) == pytest.approx(error, abs=1e-12)


def test_certain_and_right_probabilities_have_no_error_and_wrong_ones_all_of_it():
    outcome = np.array([True, False, True, False])
    for metric in (metrics.brier_score, metrics.calibration_error):
        assert metric(outcome.astype(float), outcome) == 0 and metric(1.0 - outcome, outcome) == 1
