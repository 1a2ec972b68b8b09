"""``semi_nnunet split``."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import FIRST, MORE, Dataset, NewNumber, RareFlag, one_of, option

if TYPE_CHECKING:
    from semi_nnunet.raw.benchmark_split import Split

logger = logging.getLogger(__name__)
CASES = one_of()


def split(
    dataset: Dataset,
    new_id: NewNumber,
    labelled: Annotated[int | None, option()] = None,
    *,
    published: Annotated[bool, option(group=(FIRST, CASES))] = False,
    case_list: Annotated[Path | None, option("--list", group=(FIRST, CASES))] = None,
    held_out: Annotated[str | None, option()] = None,
    name: Annotated[str | None, option(group=MORE)] = None,
    seed: Annotated[int, option(group=MORE)] = 0,
    hidden_labels: Annotated[Path | None, option(group=MORE)] = None,
    symlink: RareFlag = False,
    ignore_twins: RareFlag = False,
) -> Split:
    """Make a benchmark data set with hidden labels from a labelled one.

        semi_nnunet split -d 4 -o 504 --labelled 20 --seed 1
        semi_nnunet split -d 4 -o 504 --list labelled.txt
        semi_nnunet split -d 502 -o 602 --labelled 6 --published
        semi_nnunet split -d 502 -o 650 --labelled 6 --published --held-out 38

    Writes a new raw data set: the selected cases go to imagesTr and labelsTr, all other training
    cases to imagesUn. The hidden labels go to a folder outside the data set, so planning and
    preprocessing cannot see them. --published takes the list of N cases that semi_nnunet convert
    found in the literature. To choose settings without the test cases, --held-out makes some of the
    unlabelled cases the test cases of the new data set, instead of the old ones. If dataset.json
    names patients, whole patients are drawn and held out; one more patient is taken only if that
    brings the number closer. Images that are nearly the same are drawn together, too. Unlabelled
    images of a patient who is held out are left out.

    Args:
        dataset: The labelled data set.
        new_id: Number of the new data set.
        labelled: Number of cases that keep their labels.
        published: Take the list named N of the data set's labelled_subsets.json.
        case_list: File of the cases to keep: text, a JSON list, or a JSON object with a list
            named N.
        held_out: Unlabelled cases that become the test cases: a number, evenly spaced by name, or a
            text file or JSON list (such as whole patients).
        name: Name of the new data set (default: the old name and the number of labelled cases).
        seed: Seed of the random selection.
        hidden_labels: Folder of the hidden labels (default: next to the new data set).
        symlink: Link to the files instead of copying them.
        ignore_twins: Draw images that are nearly the same independently, as earlier versions did.

    Returns:
        What was made.

    Raises:
        UserError: a number or list does not fit the cases, or the new data set is something else.
    """
    from semi_nnunet.raw.benchmark_split import (
        RECORD,
        Split,
        choose_split_cases,
        describe_subsets,
        write_split,
    )
    from semi_nnunet.raw.layout import SUBSETS_FILE, find_raw_dataset, name_new_dataset
    from semi_nnunet.util.files import optional_json
    from semi_nnunet.verify.twins import find_training_twins, join_twins
    from semi_nnunet.workflows.prepare import count_usable_processes

    source = find_raw_dataset(dataset)
    file = source / SUBSETS_FILE if published else case_list
    choice = (source, labelled, file, seed, held_out)
    kept, tests = choose_split_cases(*choice)
    is_drawn = file is None or (held_out is not None and held_out.isdecimal())
    records = source.parent.glob(f"Dataset{new_id:03d}_*/{RECORD}")
    exists = any(optional_json(record).get("labelled") == kept for record in records)
    if is_drawn and not ignore_twins and not exists:  # a split of an earlier version stays
        groups = find_training_twins(source, count_usable_processes())
        if groups:
            count = sum(map(len, groups))
            logger.info(f"{count} images have a near-twin, and are drawn with it (--ignore-twins)")
            kept, tests = choose_split_cases(*choice, partial(join_twins, groups=groups))
    default = f"{source.name.split('_', 1)[-1]}{len(kept)}labelled"
    target = name_new_dataset(source.parent, new_id, default if name is None else name)
    hidden = Path(hidden_labels or source.parent / f"hidden_labels_{target.name}")
    is_new = write_split(source, target, kept, hidden, symlink, tests)
    made = Split(target, hidden, is_new, describe_subsets(target))
    status = "wrote" if made.is_new else "nothing to do, it exists:"
    logger.info(f"{status} {made.folder}: {made.description}; hidden labels: {made.hidden_labels}")
    logger.info(f"next: semi_nnunet preprocess -d {new_id}")
    return made
