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
from pathlib import Path

from semi_nnunet.data.integrity import cases_in
from semi_nnunet.data.layout import new_raw_dataset, raw_dataset
from semi_nnunet.data.patients import apart_from, patient_finder
from semi_nnunet.data.splits import (
    SUBSETS,
    choose_held_out,
    choose_labelled,
    describe,
    read_case_list,
    write_split,
)
from semi_nnunet.util.files import read_json


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
        "--published", action="store_true", help=f"the list named N of the data set's {SUBSETS}"
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
    source = raw_dataset(args.dataset)
    file = source / SUBSETS if args.published else args.list
    description = read_json(source / "dataset.json")
    patient_of = patient_finder(description)
    cases = list(cases_in(source / "imagesTr", description["file_ending"]))
    chosen = None if file is None else read_case_list(file, args.labelled)
    labelled = choose_labelled(cases, args.labelled, chosen, args.seed, patient_of)
    held_out: list[str] = []
    if args.held_out is not None:
        is_number = args.held_out.isdecimal()
        asked = int(args.held_out) if is_number else read_case_list(args.held_out, None)
        others = apart_from(cases, labelled, patient_of)
        held_out = choose_held_out(others, asked, patient_of)
    default = f"{source.name.split('_', 1)[-1]}{len(labelled)}labelled"
    name = default if args.name is None else args.name
    target = new_raw_dataset(source.parent, args.new_id, name)
    hidden = (
        Path(args.hidden_labels)
        if args.hidden_labels
        else source.parent / f"hidden_labels_{target.name}"
    )
    written = write_split(source, target, labelled, hidden, args.symlink, held_out)
    said = "wrote" if written else "there is nothing to do, it is done:"
    print(f"{said} {target}: {describe(target)}; hidden labels: {hidden}")
    print(f"next: semi_nnunet preprocess -d {args.new_id}")
