"""Make an nnU-Net raw data set from the files of a published benchmark.

    semi_nnunet convert acdc ~/ACDC -d 502
    semi_nnunet convert mmwhs ~/MMWHS -d 531 --target mr
    semi_nnunet convert NAME --help             which files it expects, and its options

Every case whose label is known gets it; hide labels next, in a new data set:

    semi_nnunet split -d 502 -o 602 --labelled 6 --published

The published choices of labelled cases are in its labelled_subsets.json. Missing and unexpected
files are all named before anything is written. Recipes of published experiments, which semi_nnunet
run follows, are in plans/.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

CONVERTERS = {
    "acdc": "cine MR of the heart; 3, 7 or 14 of 70 patients labelled",
    "busi": "breast ultrasound",
    "covid": "slices of lung CT with COVID-19 lesions",
    "flare22": "abdominal CT, 13 organs; 50 labelled, 2000 unlabelled",
    "kvasir": "colour endoscopy, polyps",
    "la2018": "MR of the left atrium; 4, 8 or 16 of 80 labelled",
    "mmwhs": "whole heart, from CT to MR or from MR to CT",
    "mnms": "cine MR of the heart, from three vendors to a fourth",
    "pancreas": "CT of the Medical Segmentation Decathlon, pancreas and tumour merged",
    "retouch": "slices of retinal OCT of three vendors, 3 kinds of fluid",
    "synapse": "abdominal CT (BTCV), 13 organs; 4 of 20 labelled",
}
COMMON = ("verb", "run", "converter", "source", "new_id", "new_name", "processes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(dest="converter", metavar="NAME", required=True)
    for name, summary in CONVERTERS.items():
        sub = names.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module = importlib.import_module(f"semi_nnunet.datasets.{name}")
        sub.description = module.__doc__
        sub.add_argument("source", metavar="SRC", help="folder of the downloaded files")
        sub.add_argument(
            "-d",
            dest="new_id",
            type=int,
            required=True,
            metavar="ID",
            help="number of the new data set",
        )
        sub.add_argument("--name", dest="new_name", help="its name (default: the benchmark's)")
        sub.add_argument(
            "-np",
            dest="processes",
            type=int,
            default=2,
            help="number of processes (default: %(default)s)",
        )
        module.add_options(sub)


def run(args: argparse.Namespace) -> None:
    from nnunetv2.paths import nnUNet_raw

    from semi_nnunet.cli.launching import require_positive
    from semi_nnunet.data.layout import new_raw_dataset, require_paths
    from semi_nnunet.datasets.conversion import write_conversion

    require_positive(args, "processes")
    require_paths("raw")
    raw = Path(nnUNet_raw.require())
    options = {key: value for key, value in vars(args).items() if key not in COMMON}
    module = importlib.import_module(f"semi_nnunet.datasets.{args.converter}")
    conversion = module.convert(Path(args.source).expanduser(), **options)
    name = conversion.name if args.new_name is None else args.new_name
    target = new_raw_dataset(raw, args.new_id, name, "-d")
    record = {"converter": args.converter, **options}
    written = write_conversion(conversion, target, record, args.processes)
    counts = conversion.counts.items()
    found = ", ".join(f"{number} in images{part}" for part, number in counts if number)
    print(f"{'wrote' if written else 'there is nothing to do, it is done:'} {target}: {found}")
    if conversion.counts["Un"]:
        print(f"next: semi_nnunet preprocess -d {args.new_id}")
        return
    choice = "--labelled N" + (" --published" if conversion.subsets else "")
    numbers = ", ".join(str(len(cases)) for cases in conversion.subsets)
    print(f"next: semi_nnunet split -d {args.new_id} -o NEW_ID {choice}", end="")
    print(f" (N: {numbers})" if numbers else "")
