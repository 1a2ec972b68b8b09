"""Split: a benchmark data set with hidden labels, from a labelled one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.data.integrity import cases_in
from semi_nnunet.data.layout import SUBSETS_FILE, new_raw_dataset, raw_dataset
from semi_nnunet.data.patients import apart_from, patient_finder
from semi_nnunet.data.splits import (
    choose_held_out,
    choose_labelled,
    describe,
    read_case_list,
    write_split,
)
from semi_nnunet.util.files import read_json


@dataclass(frozen=True)
class Split:
    """A data set with hidden labels.

    Args:
        folder: of the data set, in nnUNet_raw.
        hidden_labels: folder of the labels that are not in it.
        is_new: False where the same split had been made before; then nothing was written.
        description: what the data set consists of, in words.
    """

    folder: Path
    hidden_labels: Path
    is_new: bool
    description: str


def split(
    dataset: str,
    new_id: int,
    labelled: int | None = None,
    *,
    name: str | None = None,
    case_list: str | Path | None = None,
    published: bool = False,
    seed: int = 0,
    held_out: int | str | Path | None = None,
    hidden_labels: str | Path | None = None,
    symlink: bool = False,
) -> Split:
    """Make a benchmark data set with hidden labels from a labelled one.

    The chosen cases keep their labels, all other training cases become unlabelled; where
    dataset.json tells patients, whole patients are drawn and held out.

    Args:
        dataset: number or name of the labelled data set.
        new_id: number of the new one, from 1 to 999.
        labelled: how many cases keep their labels; with a file of several lists, the list's name.
        name: of the new data set; None: the old name and the number of labelled cases.
        case_list: file with the cases that keep their labels: text, a JSON list, or a JSON object
            of lists; None: they are drawn.
        published: take the list of that many cases which a converter found in the literature.
        seed: of the draw.
        held_out: unlabelled cases that become the test cases, to choose settings by: so many,
            evenly spaced by name, or those of a file; None: the old test cases stay.
        hidden_labels: folder for the hidden labels; None: beside the new data set.
        symlink: link to the files instead of copying them.

    Returns:
        What was made.

    Raises:
        UserError: a number or list does not fit the cases, or the new data set is something else.
    """
    source = raw_dataset(dataset)
    file = source / SUBSETS_FILE if published else case_list
    description = read_json(source / "dataset.json")
    patient_of = patient_finder(description)
    cases = list(cases_in(source / "imagesTr", description["file_ending"]))
    chosen = None if file is None else read_case_list(file, labelled)
    taken = choose_labelled(cases, labelled, chosen, seed, patient_of)
    outside: Sequence[str] = ()
    if held_out is not None:
        is_number = isinstance(held_out, int) or str(held_out).isdecimal()
        asked = int(str(held_out)) if is_number else read_case_list(str(held_out), None)
        outside = choose_held_out(apart_from(cases, taken, patient_of), asked, patient_of)
    default = f"{source.name.split('_', 1)[-1]}{len(taken)}labelled"
    target = new_raw_dataset(source.parent, new_id, default if name is None else name)
    hidden = Path(hidden_labels or source.parent / f"hidden_labels_{target.name}")
    is_new = write_split(source, target, taken, hidden, symlink, outside)
    return Split(target, hidden, is_new, describe(target))
