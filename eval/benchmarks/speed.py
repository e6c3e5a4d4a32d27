"""What seconds tell: speed without start-up, shares of time, and the ratio of two things that were run by turns.

Everything here is arithmetic on seconds that others measured (eval.benchmarks.throughput). "By size" is by number of photographs, and the
n-th seconds of every size and of both things are of the same round.
"""

from statistics import median

BySize = dict[int, list[float]]


def speed(seconds: BySize) -> dict:
    """Of two sizes: what the larger one takes longer is the work on its further photographs, for starting is in both.

    By the medians; None where the larger one took no longer, as the work then drowns in what else varies.
    """
    (small, few), (large, many) = sorted((size, median(values)) for size, values in seconds.items())
    each = (many - few) / (large - small)
    if each <= 0:
        why = f"{large} photographs took no longer than {small}; --sizes further apart or more --repeats tell them apart"
        return {"images_per_second": None, "seconds_per_image": None, "start_up_seconds": None, "no_speed": why}
    return {"images_per_second": 1 / each, "seconds_per_image": each, "start_up_seconds": few - small * each}


def shares(whole: float, phases: dict[str, float]) -> dict[str, float] | None:
    """Each phase's share of `whole` seconds; `other` is what no phase has. None where they add up to more than the whole."""
    parts = {name: seconds / whole for name, seconds in phases.items()}
    other = 1 - sum(parts.values())
    return {**parts, "other": other} if other >= 0 else None


def ratios(ours: BySize, theirs: BySize) -> dict:
    """Their seconds per photograph / ours, without start-up: the median over the rounds, the least and the most."""
    return spread(further(ours), further(theirs))


def spread(ours: list[float], theirs: list[float]) -> dict:
    """Their seconds / ours, round by round: the median of that, the least and the most."""
    rounds = [ratio(one, other) for one, other in zip(ours, theirs)]
    known = [value for value in rounds if value is not None]
    told = (median(known), min(known), max(known)) if known else (None, None, None)
    return {**dict(zip(("ratio", "ratio_least", "ratio_most"), told)), "ratio_of_rounds": rounds}


def further(seconds: BySize) -> list[float]:
    """What the larger size took longer, round by round."""
    return [many - few for few, many in zip(seconds[min(seconds)], seconds[max(seconds)])]


def ratio(ours: float, theirs: float) -> float | None:
    """None where a round tells no speed: the larger size took no longer."""
    return theirs / ours if ours > 0 and theirs > 0 else None
