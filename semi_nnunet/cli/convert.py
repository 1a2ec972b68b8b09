"""Make an nnU-Net raw data set from the files of a published benchmark.

    semi_nnunet convert acdc ~/ACDC -d 502
    semi_nnunet convert mmwhs ~/MMWHS -d 531 --target mr
    semi_nnunet convert NAME --help             which files it expects, and its options

Every case whose label is known gets it; hide labels next, in a new data set:

    semi_nnunet split -d 502 -o 602 --labelled 6 --published

The published choices of labelled cases are in its labelled_subsets.json. Missing and unexpected
files are all named before anything is written. Recipes of published experiments, which semi_nnunet
run follows, are listed by semi_nnunet recipes.
"""

from __future__ import annotations

import argparse
from typing import Any

from semi_nnunet.datasets.converters import CONVERTERS, convert, converter_module

COMMON = ("verb", "run", "converter", "source", "new_id", "new_name", "processes")


class OfOneConverter(argparse.ArgumentParser):
    """The options of one converter, whose module is imported when they are read."""

    converter: str | None = None

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Add the options first."""
        if self.converter is not None:
            module, self.converter = converter_module(self.converter), None
            self.description = module.__doc__
            add_common_arguments(self)
            module.add_options(self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(
        dest="converter", metavar="NAME", required=True, parser_class=OfOneConverter
    )
    for name, summary in CONVERTERS.items():
        sub = names.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.converter = name


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What every converter takes."""
    add = parser.add_argument
    add("source", metavar="SRC", help="folder of the downloaded files")
    add("-d", dest="new_id", type=int, required=True, metavar="ID", help="number of the new data "
        "set")  # fmt: skip
    add("--name", dest="new_name", help="its name (default: the benchmark's)")
    add("-np", dest="processes", type=int, default=2, help="number of processes (default: "
        "%(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    options = {key: value for key, value in vars(args).items() if key not in COMMON}
    made = convert(
        args.converter, args.source, args.new_id, args.new_name, args.processes, **options
    )
    found = ", ".join(f"{number} in images{part}" for part, number in made.counts.items() if number)
    print(f"{'wrote' if made.is_new else 'there is nothing to do, it is done:'} {made.folder}: "
          f"{found}")  # fmt: skip
    if made.counts["Un"]:
        print(f"next: semi_nnunet preprocess -d {args.new_id}")
        return
    choice = "--labelled N" + (" --published" if made.published else "")
    numbers = ", ".join(map(str, made.published))
    print(f"next: semi_nnunet split -d {args.new_id} -o NEW_ID {choice}", end="")
    print(f" (N: {numbers})" if numbers else "")
