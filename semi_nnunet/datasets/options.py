"""Options of several converters."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=parse_whole_number(0),
        default=0,
        help="of the random choices (default: %(default)s)",
    )


def add_symlink(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--symlink", action="store_true", help="link to files that need no change")


def add_incomplete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--incomplete", action="store_true", help="convert the existing files if some are missing"
    )


def add_size(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    shown = "unchanged" if default is None else default
    parser.add_argument(
        "--size",
        type=parse_whole_number(8),
        default=default,
        metavar="PIXELS",
        help=f"resize slices to PIXELS x PIXELS, masks by nearest neighbour (default: {shown})",
    )


def add_test_percent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test-percent",
        type=parse_whole_number(1, 99),
        default=20,
        metavar="PERCENT",
        help="of the images are test cases (default: %(default)s)",
    )


def parse_whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a whole number from ``low``, or up to ``high``.

    >>> parse_whole_number(1, 99)("20")
    20
    """
    rule = f"must be a whole number from {low}" + ("" if high is None else f" to {high}")

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{rule}, got {text!r}")
        return int(text)

    return parse
