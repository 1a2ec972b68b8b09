"""Say in one screen what is set up, what is missing and how to mend it.

semi_nnunet doctor
semi_nnunet doctor -d 42            whether a data set is ready to train on, and what to do next
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", dest="dataset", metavar="ID", help="look at this data set, by number or name")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.data.layout import raw_dataset
    from semi_nnunet.discovery.doctor import examine

    if args.dataset is not None:
        raw_dataset(args.dataset)  # a mistake is told before PyTorch is imported, which takes long
    wrong, following = 0, list[str]()
    for finding in examine(with_datasets=args.dataset is None):
        print(finding, flush=True)
        wrong += finding.fix is not None
    if args.dataset is not None:
        from semi_nnunet.runs.ready import examine_dataset

        of_dataset, following = examine_dataset(args.dataset)
        print(*of_dataset, sep="\n")
        wrong += sum(finding.fix is not None for finding in of_dataset)
    print(f"\n{wrong} thing{'s' * (wrong != 1)} to mend" if wrong else "\neverything is in place")
    if following:
        from semi_nnunet.runs.next_step import next_lines

        print(next_lines(following))
    return 1 if wrong else 0
