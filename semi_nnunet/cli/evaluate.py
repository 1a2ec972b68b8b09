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
from pathlib import Path


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
    from semi_nnunet.evaluation.measuring import evaluate
    from semi_nnunet.evaluation.tables import printed
    from semi_nnunet.runs.next_step import after_measuring, next_lines
    from semi_nnunet.util.errors import printable

    measured = evaluate(
        args.predictions, args.references, out=args.out, dataset_json=args.dataset_json,
        tolerances=args.tolerances, class_tolerances=args.class_tolerances,
        in_voxels=args.voxels, missed_distance=args.missed_distance, partial=args.partial,
        processes=args.num_processes,
    )  # fmt: skip
    print(printable(printed(measured.content)))
    print(f"{measured.cases} cases; wrote metrics.csv, metrics.json and summary.json to "
          f"{measured.folder}")  # fmt: skip
    if following := after_measuring(args.predictions):
        print(next_lines(following))
