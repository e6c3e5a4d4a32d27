"""Every command that the fuzzer tries, and how many cases of each.

    found = commands.made(folder)           # a Command by name, their templates below the folder
"""

from pathlib import Path

from places import Command
from places_of_runs import of_bench, of_ensembles, of_runs
from places_of_tables import of_folds, of_importers, of_scores
from places_of_weights import of_solution

CASES = {  # of the fast suite, of the long run: fewer where a case takes longer
    "folds": (10, 1200), "folds of photographs": (3, 500), "folds --keep": (8, 700), "score": (20, 1500), "score of names": (16, 1000), "compare": (12, 1000), "leaderboard": (12, 1000), "leakage": (8, 800),
    "import whaledo": (10, 800), "import coco": (12, 1000), "import hwi": (10, 800), "import happywhale": (8, 500), "import wildlife": (12, 1000), "import folders": (4, 300), "summary": (10, 800),
    "report": (2, 300), "report, drawn": (0, 60), "step": (10, 600), "ladder": (12, 1200), "ensembles": (2, 200), "bench, its arguments": (10, 150), "predict": (3, 300), "predict names": (4, 300), "embed": (2, 200),
    "rank": (10, 900), "weigh": (3, 300), "search build": (8, 500), "search ask": (10, 700), "identify": (3, 200), "explain": (2, 200), "explain names": (2, 200), "pseudo": (10, 800), "quantize": (8, 500), "train --dry-run": (12, 700),
    "train": (2, 300), "train --resume": (2, 400), "pack": (2, 300), "submission main": (10, 700), "rehearse, its checks": (10, 700)}
BUILDERS = [of_folds, of_scores, of_importers, of_runs, of_ensembles, of_bench, of_solution]


def made(root: Path) -> dict[str, Command]:
    import matplotlib.font_manager  # whose first import asks the system for its fonts, and keeps them

    found = {}
    for builder in BUILDERS:
        place = root / builder.__name__
        place.mkdir(parents=True)
        found.update(builder(place))
    return found
