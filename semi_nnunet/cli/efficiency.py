"""Measure what a submission costs a case, as FLARE does: time, and areas under its curves.

    semi_nnunet efficiency -i imagesTs -o measured --command "semi_nnunet predict --fast \\
        -m MODEL -i {inputs} -o {outputs}"
    semi_nnunet efficiency -i imagesTs -r labelsTs -o measured --command \\
        "docker run --rm -v {inputs}:/workspace/inputs/ -v {outputs}:/workspace/outputs/ NAME \\
        /bin/bash -c 'sh predict.sh'"

The command is called once for each case, whose folders take the place of {inputs} and {outputs}, so
that its start counts. Meanwhile, every tenth second, the processors' use (user and system time of
the whole machine), the memory and the GPU memory in use are sampled: nothing else should run. Areas
under these curves are in percent x seconds and MiB x seconds. Writes efficiency.csv,
efficiency.json, log.txt and outputs/. Cases that fail, take longer than --limit or were sampled too
rarely are named, and the exit status is not 0. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-i", dest="images", type=Path, required=True, help="folder of CASE_0000.ending files")
    add("-o", dest="out", type=Path, required=True, help="new folder for what is measured")
    add("--command", required=True, help="that reads {inputs} and writes {outputs}")
    add("-r", dest="references", type=Path, help="true labels, to measure Dice and NSD, too")
    add(
        "--class-tolerances", nargs="+", default=[], metavar="CLASS=MM",
        help="for NSD, one for each class (default: 1 mm)",
    )  # fmt: skip
    add("--ending", default=".nii.gz", help=f"of the files ({default})")
    add("--limit", type=float, metavar="SECONDS", help="for each case (default: none)")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.challenge.efficiency import efficiency, printed
    from semi_nnunet.util.errors import printable

    measured = efficiency(
        args.command, args.images, args.out, references=args.references,
        class_tolerances=args.class_tolerances, ending=args.ending, limit=args.limit,
    )  # fmt: skip
    print(f"mean of {len(measured.cases)} cases:\n{printed(measured)}")
    for problem in measured.problems:
        print(printable(str(problem)))
    return 1 if measured.problems else 0
