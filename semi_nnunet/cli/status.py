"""Say what is done, running, begun and still to come of a data set's trainings; how long to go.

    semi_nnunet status -d 42

Looks at the results folder alone, so that it also shows what another machine, or nnU-Net's own
commands, trained there.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", help="only trainings with these (default: with any)")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.status import status
    from semi_nnunet.util.errors import printable

    print(*map(printable, status(args.dataset, args.plans)), sep="\n")
