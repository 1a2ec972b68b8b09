"""Options that several data sets have."""

from __future__ import annotations

import argparse


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=seed, default=0, help="of the random choices (default: %(default)s)"
    )


def add_symlink(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--symlink", action="store_true", help="link to files that need no change")


def add_incomplete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--incomplete", action="store_true", help="take what is there if files are missing"
    )


def add_size(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    shown = "as it is" if default is None else default
    parser.add_argument(
        "--size",
        type=pixels,
        default=default,
        metavar="PIXELS",
        help=f"resize slices to PIXELS x PIXELS, masks by nearest neighbour (default: {shown})",
    )


def add_test_percent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test-percent",
        type=percentage,
        default=20,
        metavar="PERCENT",
        help="of the images are test cases (default: %(default)s)",
    )


def seed(text: str) -> int:
    """What NumPy's random generator takes."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def pixels(text: str) -> int:
    """A size of an image that can be trained on."""
    if not text.isdigit() or int(text) < 8:
        raise argparse.ArgumentTypeError(f"must be a whole number from 8, got {text!r}")
    return int(text)


def percentage(text: str) -> int:
    """A part that is neither nothing nor all."""
    if not text.isdigit() or not 0 < int(text) < 100:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 99, got {text!r}")
    return int(text)
