"""What brings data into the one layout everything reads: metadata.csv, images/ and, where there are any, scenarios.

`python -m eval.importers demo --output DATA` draws a small competition of some 600 photographs of made-up belugas, with the
columns and both kinds of scenario of the real one, in about 12 s; the same seed gives the same bytes. `whaledo` takes the
real one's directory (`eval.sources.competition`), `coco` COCO JSON with individuals (`eval.sources.coco`), `hwi` and `happywhale` the folder
as Kaggle hands it out (`eval.sources.kaggle`), `wildlife` and `folders` tables of paths, sets of the package wildlife-datasets and
folders named after individuals (`eval.sources.wildlife`); linking 33,000 photographs takes seconds.
An importer fills an empty directory, which takes its name when it is complete.
"""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Callable

from eval.files import InputError, run, whole_directory


def import_demo(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.demo import write_demo

    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must be 0 or more")
    write_demo(data, arguments.seed)


def import_whaledo(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.competition import write_whaledo

    write_whaledo(data, arguments.source, arguments.labels)


def import_coco(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.coco import write_coco

    write_coco(data, arguments.source, arguments.images, arguments.identity, arguments.date_format)


def import_kaggle(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.kaggle import COMPETITIONS, write_competition

    write_competition(data, arguments.source, COMPETITIONS[arguments.name], arguments.boxes)


def import_wildlife(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.wildlife import write_package_set, write_paths

    if arguments.root:
        write_package_set(data, arguments.source, arguments.root, arguments.identity, arguments.date_format)
    else:
        write_paths(data, Path(arguments.source), arguments.images, arguments.identity, arguments.date_format)


def import_folders(arguments: argparse.Namespace, data: Path) -> None:
    from eval.sources.wildlife import write_folders

    write_folders(data, arguments.source)


def date_format(text: str) -> str:
    """An argument that strptime knows as a format, with a year in it at least."""
    try:
        known = datetime.strptime(datetime(2001, 1, 1).strftime(text), text).year == 2001
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"{text!r} is no format of dates; write one such as %d/%m/%Y")
    return text


def add_source(sources: argparse._SubParsersAction, name: str, importer: Callable, help: str, example: str,
               source: str = "") -> argparse.ArgumentParser:
    """A source with --output, and SOURCE where `source` says what that is."""
    parser = sources.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".",
                                epilog=f"example: python -m eval.importers {name} {example}")
    if source:
        parser.add_argument("source", type=str if name == "wildlife" else Path, metavar="SOURCE", help=source)
    parser.add_argument("--output", type=Path, required=True, metavar="DATA", help="the directory to make")
    parser.set_defaults(importer=importer, name=name)
    return parser


def add_reading(parser: argparse.ArgumentParser, images: str, identity: str) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--images", type=Path, metavar="FOLDER", help=images)
    if parser.get_default("name") == "wildlife":
        where.add_argument("--root", type=Path, metavar="FOLDER", help="what wildlife-datasets downloaded; SOURCE names its set")
    parser.add_argument("--identity", metavar="NAME", help=identity)
    parser.add_argument("--date-format", type=date_format, metavar="FORMAT", help="of dates such as 31/12/2019: %%d/%%m/%%Y")


def add_sources(sources: argparse._SubParsersAction) -> None:
    demo = add_source(sources, "demo", import_demo, "draw photographs of made-up belugas; nothing is read",
                      "--output runs/demo/data")
    demo.add_argument("--seed", type=int, default=0, help="another seed, another population (default 0)")
    whaledo = add_source(sources, "whaledo", import_whaledo, "the directory of Where's Whale-do?, with its scenarios and labels",
                         "beluga --output data/beluga",
                         "folder with metadata.csv and, where they are, images/ and query_scenarios.csv")
    whaledo.add_argument("--labels", type=Path, metavar="FILE",
                         help="CSV query_id,database_image_id (default: SOURCE/example_labels.csv where it is there)")
    coco = add_source(sources, "coco", import_coco, "COCO JSON with individuals, such as LILA's Beluga ID 2022",
                      "instances_train2022.json --images train2022 --output data/beluga", "the JSON file")
    add_reading(coco, "where its file_names start (without: labels alone)",
                "field of the individual (default: name, individual_id or identity)")
    for name, title in {"hwi": "Humpback Whale Identification", "happywhale": "Happywhale"}.items():
        kaggle = add_source(sources, name, import_kaggle, f"the folder of Kaggle's {title}: DATA with labels, DATA/test without",
                            f"kaggle/{name} --output data/{name}", "folder with train.csv and, where they are, photographs")
        kaggle.add_argument("--boxes", type=Path, metavar="FILE",
                            help="CSV Image,x0,y0,x1,y1 in pixels (default: SOURCE/bounding_boxes.csv where it is there)")
    wildlife = add_source(sources, "wildlife", import_wildlife,
                          "any table of path, identity, or a set of the package wildlife-datasets",
                          "table.csv --output data, or: wildlife NyalaData --root downloads/nyala --output data",
                          "the CSV, or with --root the set's name")
    add_reading(wildlife, "where its paths start (default: the table's folder)",
                "column of the individual (default: identity, individual_id or whale_id)")
    add_source(sources, "folders", import_folders, "folders named after individuals: photographs/ANNA/1.jpg",
               "photographs --output data", "the folder of folders")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.importers", description="Bring photographs and labels into the one data layout.",
        epilog="example: python -m eval.importers demo --output runs/demo/data")
    add_sources(parser.add_subparsers(title="sources", required=True, metavar="SOURCE"))
    arguments = parser.parse_args()
    with whole_directory(arguments.output) as data:
        arguments.importer(arguments, data)


if __name__ == "__main__":
    run(main)
