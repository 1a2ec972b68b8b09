"""Measure predictions against references: overlap, surfaces and volumes of every case and class.

    semi_nnunet evaluate -i predictions -r $nnUNet_raw/Dataset042_Pancreas/labelsTs

Writes metrics.csv (a row for each case and class), metrics.json (with the means and what each
column is) and nnU-Net's summary.json. Distances are in mm on the native grid, of pictures (.png and
the like), which have no spacing, in pixels; surface metrics come in both conventions in use, which
give different numbers: *_edge as MONAI and medpy, *_surfel as DeepMind's surface-distance and
FLARE. hd95_edge is the percentile of both directions together, as medpy's, where MONAI's is the
larger of the two. A class that neither mask shows is not counted; one
that only one of them shows has overlap 0 and, for a distance, the diagonal of the image.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from semi_nnunet.util.errors import Problem, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-i", dest="predictions", required=True, type=Path, help="folder of predicted files")
    add("-r", dest="references", required=True, type=Path, help="folder of reference files")
    add("-o", dest="out", type=Path, help="where the tables go (default: beside the predictions)")
    add(
        "--dataset-json",
        type=Path,
        help="says what the classes or regions are (default: the one with the predictions, which "
        "nnUNetv2_predict writes, or of the references' data set)",
    )
    add(
        "--tolerances", type=float, nargs="+", default=[1.0, 2.0], metavar="MM",
        help=f"up to which distance surfaces agree, for NSD ({default})",
    )  # fmt: skip
    add(
        "--class-tolerances", nargs="+", default=[], metavar="CLASS=MM",
        help="one tolerance for each class, as FLARE has them: columns nsd_*_own",
    )  # fmt: skip
    add("--voxels", action="store_true", help="measure in voxels, as papers on LA and ACDC do")
    add(
        "--missed-distance", type=float, metavar="MM",
        help="distance of a class that only one mask shows (default: the diagonal of the image)",
    )  # fmt: skip
    add("--partial", action="store_true", help="not every reference needs a prediction")
    add("-np", dest="num_processes", type=int, default=2, help=f"processes ({default})")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.data.raw_description import read_description
    from semi_nnunet.evaluation.folder import evaluate, find_pairs, make_protocol
    from semi_nnunet.evaluation.labelling import read_labelling
    from semi_nnunet.evaluation.tables import printed, write_tables

    own, wrong = class_tolerances(args.class_tolerances)
    if found := [*wrong, *problems(args, own)]:
        raise UserError("The measuring cannot start:", found)
    dataset_json = args.dataset_json or find_dataset_json(args.predictions, args.references)
    ending = read_description(dataset_json.parent, dataset_json.name)["file_ending"]
    pairs = find_pairs(args.predictions, args.references, ending, args.partial)
    example = pairs[0].reference
    protocol = make_protocol(
        read_labelling(dataset_json, example), example,
        args.tolerances, own, args.missed_distance, args.voxels,
    )  # fmt: skip
    out = args.out or args.predictions
    out.mkdir(parents=True, exist_ok=True)  # before the work
    rows = evaluate(pairs, protocol, args.num_processes)
    content = write_tables(out, rows, pairs, protocol)
    print(printed(content))
    print(f"{len(pairs)} cases; wrote metrics.csv, metrics.json and summary.json to {out}")


def problems(args: argparse.Namespace, own: Mapping[str, float]) -> list[Problem]:
    """What is wrong with the options."""
    from semi_nnunet.cli.launching import below_one

    numbers = [("--tolerances", size) for size in args.tolerances]
    numbers += [(f"--class-tolerances {name}", size) for name, size in own.items()]
    if args.missed_distance is not None:
        numbers.append(("--missed-distance", args.missed_distance))
    found = [
        Problem(option, f"must be 0 or more, and finite, got {size:g}", "correct it")
        for option, size in numbers
        if not 0 <= size < math.inf
    ]
    found += below_one({"-np": args.num_processes})
    folders = [("-i", args.predictions), ("-r", args.references)]
    found += [
        Problem(option, f"{folder} is no folder", "correct it")
        for option, folder in folders
        if not folder.is_dir()
    ]
    return found


def class_tolerances(words: Sequence[str]) -> tuple[dict[str, float], list[Problem]]:
    """``["liver=5", ...]`` as numbers, and what is none."""
    numbers, found = {}, []
    for word in words:
        name, _, size = word.rpartition("=")
        if name in numbers:
            what = f"must give {name} one tolerance, got another in {word!r}"
            found.append(Problem("--class-tolerances", what, "leave one of them out"))
        try:
            numbers[name] = float(size)
        except ValueError:
            name = ""
        if not name:
            what = f"must be CLASS=MM, got {word!r}"
            found.append(Problem("--class-tolerances", what, "correct it"))
    return numbers, found


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """The ``dataset.json`` of the predictions, or of the data set of the references."""
    candidates = [
        predictions / "dataset.json",
        references / "dataset.json",
        references.parent / "dataset.json",
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"no dataset.json says what the classes are; looked for "
        f"{', '.join(map(str, candidates))}. Fix: give --dataset-json"
    )
