"""``semi_nnunet convert``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semi_nnunet.datasets.converters import Converted

logger = logging.getLogger(__name__)


def convert(
    name: str,
    source: str | Path,
    number: int,
    new_name: str | None = None,
    processes: int = 2,
    **options: Any,
) -> Converted:
    """Make an nnU-Net raw data set from the files of a published benchmark.

        semi_nnunet convert acdc ~/ACDC -d 502
        semi_nnunet convert mmwhs ~/MMWHS -d 531 --target mr
        semi_nnunet convert NAME --help             expected files and options

    Every case whose label is known gets it. To hide labels, make a new data set next:

        semi_nnunet split -d 502 -o 602 --labelled 6 --published

    The published choices of labelled cases are written to labelled_subsets.json. All missing and
    unexpected files are named before anything is written. semi_nnunet run --list lists the recipes
    of published experiments.

    Args:
        name: Name of a converter.
        source: Folder of the downloaded files.
        number: Number of the new data set, from 1 to 999.
        new_name: Name of the new data set (default: the benchmark's).
        processes: Worker processes.
        options: Options of the converter, as semi_nnunet convert NAME --help lists them, with "_"
            for "-"; others have their defaults.

    Returns:
        What was made, in nnUNet_raw.

    Raises:
        UserError: there is no such converter or option, the files are not as expected, or the
            number is taken.
    """
    from semi_nnunet.datasets.converters import convert as convert_benchmark

    made = convert_benchmark(name, source, number, new_name, processes, **options)
    counts = ", ".join(f"{cases} in images{part}" for part, cases in made.counts.items() if cases)
    status = "wrote" if made.is_new else "nothing to do, it exists:"
    logger.info(f"{status} {made.folder}: {counts}")
    if made.counts["Un"]:
        logger.info(f"next: semi_nnunet preprocess -d {number}")
        return made
    subset = "--labelled N" + (" --published" if made.published else "")
    sizes = f" (N: {', '.join(map(str, made.published))})" if made.published else ""
    logger.info(f"next: semi_nnunet split -d {number} -o NEW_ID {subset}{sizes}")
    return made


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of :func:`convert` for a command line; a converter has its own options.

    Args:
        words: The words after ``semi_nnunet convert``.
    """
    return vars(build_parser().parse_args(list(words)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all converters; the module of one is imported when it is named."""
    from semi_nnunet.datasets.converters import CONVERTERS

    parser = argparse.ArgumentParser(
        prog="semi_nnunet convert",
        description=(convert.__doc__ or "").partition("    Args:")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = parser.add_subparsers(
        dest="name", metavar="NAME", required=True, parser_class=ConverterParser
    )
    for name, summary in CONVERTERS.items():
        converter = names.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        converter.converter = name
    return parser


class ConverterParser(argparse.ArgumentParser):
    """Parser of one converter, whose module is imported when its words are read."""

    converter: str | None = None

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Add the options of the converter, then parse."""
        from semi_nnunet.datasets.converters import converter_module

        if self.converter is not None:
            module, self.converter = converter_module(self.converter), None
            self.description = module.__doc__
            add = self.add_argument
            add("source", metavar="SRC", help="folder of the downloaded files")
            add("-d", dest="number", type=int, required=True, metavar="ID",
                help="number of the new data set")  # fmt: skip
            add(
                "--name",
                dest="new_name",
                help="name of the new data set (default: the benchmark's)",
            )
            add("-np", dest="processes", type=int, default=2,
                help="worker processes (default: %(default)s)")  # fmt: skip
            module.add_options(self)
        return super().parse_known_args(args, namespace)
