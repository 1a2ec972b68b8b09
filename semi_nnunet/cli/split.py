"""Make a benchmark data set with hidden labels from a labelled one.

    semi_nnunet split -d 4 -o 504 --labelled 20 --seed 1
    semi_nnunet split -d 4 -o 504 --list labelled.txt
    semi_nnunet split -d 502 -o 602 --labelled 6 --published
    semi_nnunet split -d 502 -o 650 --labelled 6 --published --held-out 38

Writes a new raw data set: the chosen cases in imagesTr and labelsTr, all other training cases in
imagesUn; their labels go to a folder outside it. Planning and preprocessing see only what is left.
--published takes the list of N cases that semi_nnunet convert found in the literature. Settings are
to be chosen without the test cases: --held-out makes some of the unlabelled cases the test cases of
the new data set, in place of those of the old one. Where dataset.json tells patients, whole
patients are drawn and held out: one after another, unless that misses the number by more than
before. Their images that have no label yet are left out where the patient is held out.
"""

from __future__ import annotations

import argparse

from semi_nnunet.data.layout import SUBSETS_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="ID", help="the labelled data set"
    )
    parser.add_argument(
        "-o",
        dest="new_id",
        required=True,
        type=int,
        metavar="NEW_ID",
        help="number of the new data set",
    )
    parser.add_argument(
        "--name",
        help="name of the new data set (default: the old name and the number of labelled cases)",
    )
    parser.add_argument(
        "--labelled", type=int, metavar="N", help="how many cases keep their labels"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--list",
        metavar="FILE",
        help="which cases: a text file, a JSON list, or a JSON object with a list named N",
    )
    which.add_argument(
        "--published",
        action="store_true",
        help=f"the list named N of the data set's {SUBSETS_FILE}",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random choice (default: %(default)s)"
    )
    parser.add_argument(
        "--held-out",
        metavar="N|FILE",
        help="unlabelled cases that become the test cases, to choose settings by: so many, evenly "
        "spaced by name, or those of a text file or JSON list (such as whole patients)",
    )
    parser.add_argument(
        "--hidden-labels",
        metavar="DIR",
        help="where the hidden labels go (default: beside the new data set)",
    )
    parser.add_argument(
        "--symlink", action="store_true", help="link to the files instead of copying them"
    )


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.data.splitting import split

    made = split(
        args.dataset, args.new_id, args.labelled, name=args.name, case_list=args.list,
        published=args.published, seed=args.seed, held_out=args.held_out,
        hidden_labels=args.hidden_labels, symlink=args.symlink,
    )  # fmt: skip
    said = "wrote" if made.is_new else "there is nothing to do, it is done:"
    print(f"{said} {made.folder}: {made.description}; hidden labels: {made.hidden_labels}")
    print(f"next: semi_nnunet preprocess -d {args.new_id}")
