"""What brings data into the one layout everything reads: metadata.csv, images/ and, where there are any, scenarios.

`python -m eval.importers demo --output DATA` draws a small competition of some 600 photographs of made-up belugas, with the
columns and both kinds of scenario of the real one, in about 12 s; the same seed gives the same bytes. `hwi` and `happywhale`
take the folder as Kaggle hands it out (`eval.kaggle`); linking 33,000 photographs takes seconds.
An importer fills an empty directory, which takes its name when it is complete.
"""

import argparse
from pathlib import Path

from eval.files import run, whole_directory


def import_demo(arguments: argparse.Namespace) -> None:
    from eval.demo import write_demo

    with whole_directory(arguments.output) as data:
        write_demo(data, arguments.seed)


def import_kaggle(arguments: argparse.Namespace) -> None:
    from eval.kaggle import COMPETITIONS, write_competition

    with whole_directory(arguments.output) as data:
        write_competition(data, arguments.source, COMPETITIONS[arguments.name], arguments.boxes)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.importers", description="Bring photographs and labels into the one data layout.",
        epilog="example: python -m eval.importers demo --output runs/demo/data")
    sources = parser.add_subparsers(title="sources", required=True, metavar="SOURCE")
    demo = sources.add_parser("demo", help="draw photographs of made-up belugas; nothing is read",
                              epilog="example: python -m eval.importers demo --output runs/demo/data")
    demo.add_argument("--output", type=Path, required=True, metavar="DATA", help="the directory to make")
    demo.add_argument("--seed", type=int, default=0, help="another seed, another population (default 0)")
    demo.set_defaults(importer=import_demo)
    for name, title in {"hwi": "Humpback Whale Identification", "happywhale": "Happywhale"}.items():
        kaggle = sources.add_parser(name, help=f"the folder of Kaggle's {title}: DATA with labels, DATA/test without",
                                    epilog=f"example: python -m eval.importers {name} kaggle/{name} --output data/{name}")
        kaggle.add_argument("source", type=Path, metavar="SOURCE", help="folder with train.csv and, where they are, photographs")
        kaggle.add_argument("--output", type=Path, required=True, metavar="DATA", help="the directory to make")
        kaggle.add_argument("--boxes", type=Path, metavar="FILE",
                            help="CSV Image,x0,y0,x1,y1 in pixels (default: SOURCE/bounding_boxes.csv where it is there)")
        kaggle.set_defaults(importer=import_kaggle, name=name)
    arguments = parser.parse_args()
    arguments.importer(arguments)


if __name__ == "__main__":
    run(main)
