"""``semi_nnunet split``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import FIRST, MORE, Dataset, NewId, RareFlag, one_of, option

if TYPE_CHECKING:
    from semi_nnunet.raw.benchmark_split import Split

logger = logging.getLogger(__name__)
SOURCE = one_of()


def split(
    dataset: Dataset,
    new_id: NewId,
    labelled: Annotated[int | None, option()] = None,
    *,
    published: Annotated[bool, option(group=(FIRST, SOURCE))] = False,
    cases: Annotated[Path | None, option(group=(FIRST, SOURCE))] = None,
    held_out: Annotated[str | None, option()] = None,
    sparse: Annotated[str | None, option()] = None,
    new_name: Annotated[str | None, option(group=MORE)] = None,
    seed: Annotated[int, option(group=MORE)] = 0,
    hidden_labels: Annotated[Path | None, option(group=MORE)] = None,
    symlink: RareFlag = False,
    ignore_twins: RareFlag = False,
) -> Split:
    """Make a benchmark data set with hidden labels from a labelled one.

        semi_nnunet split -d 4 --new-id 504 --labelled 20 --seed 1
        semi_nnunet split -d 4 --new-id 504 --cases labelled.txt
        semi_nnunet split -d 502 --new-id 602 --labelled 6 --published
        semi_nnunet split -d 502 --new-id 650 --labelled 6 --published --held-out 38
        semi_nnunet split -d 4 --new-id 505 --sparse scribbles

    Writes a new raw data set: the selected cases go to imagesTr and labelsTr, all other training
    cases to imagesUn. The hidden labels go to a folder outside the data set, so planning and
    preprocessing cannot see them. --published takes the list of N cases that semi_nnunet convert
    found in the literature. To choose settings without the test cases, --held-out makes some of the
    unlabelled cases the test cases of the new data set, instead of the old ones. If dataset.json
    names patients, whole patients are drawn and held out; one more patient is taken only if that
    brings the number closer. Images that are nearly the same are drawn together, too. Unlabelled
    images of a patient who is held out are left out. --sparse keeps some voxels of each label, the
    others get nnU-Net's ignore label: slices=0.1 (a tenth of the slices), scribbles, points or box,
    for every class of every slice.

    Args:
        dataset: The labelled data set.
        new_id: Number of the new data set.
        labelled: Number of cases that keep their labels.
        published: Take the list named N of the data set's labelled_subsets.json.
        cases: File of the cases to keep: text, a JSON list, or a JSON object with a list
            named N.
        held_out: Unlabelled cases that become the test cases: a number, evenly spaced by name, or a
            text file or JSON list (such as whole patients).
        sparse: Keep only slices=FRACTION, scribbles, points or box of each label; scribbles=SHARE
            of the lines (default: 0.5), points=N for each class and slice (1), box=EDGE
            relative to the slice (0.1). Without --labelled, of all cases.
        new_name: Name of the new data set (default: the old name and the number of labelled cases).
        seed: Seed of the random selection, and of sparse labels.
        hidden_labels: Folder of the hidden labels (default: next to the new data set).
        symlink: Link to the files instead of copying them.
        ignore_twins: Draw images that are nearly the same independently, as earlier versions did.

    Returns:
        The new data set.

    Raises:
        UserError: a number or list does not fit the cases, or the new data set is something else.

    Example:
        >>> split("42", 142, labelled=2).description
        '2 in imagesTr, 3 in imagesUn, 2 in imagesTs'
    """
    from semi_nnunet.raw.benchmark_split import (
        RECORD,
        choose_split_cases,
        write_split,
    )
    from semi_nnunet.raw.layout import SUBSETS_FILE, find_raw_dataset, name_new_dataset
    from semi_nnunet.raw.sparse_labels import parse_sparsity
    from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
    from semi_nnunet.util.files import optional_json
    from semi_nnunet.verify.twins import find_training_twins, join_twins
    from semi_nnunet.workflows.prepare import count_usable_processes

    source = find_raw_dataset(dataset)
    file = source / SUBSETS_FILE if published else cases
    choose = partial(
        choose_split_cases, source, labelled, file, seed, held_out, keep_all=bool(sparse)
    )
    problems, sparsity, kept = list[Problem](), None, list[str]()
    tests: Sequence[str] = ()
    if sparse is not None:
        with collect_errors(problems, "--sparse"):
            sparsity = parse_sparsity(sparse)
    with collect_errors(problems, "the cases"):
        kept, tests = choose()

    def name_target() -> Path:
        kind = "labelled" if sparsity is None else sparsity.kind
        default = f"{source.name.split('_', 1)[-1]}{len(kept)}{kind}"
        return name_new_dataset(source.parent, new_id, default if new_name is None else new_name)

    with collect_errors(problems, "--new-id"):
        name_target()
    raise_if_any("The data set cannot be split:", problems)
    is_drawn = (file is None and labelled is not None) or (held_out or "").isdecimal()
    records = source.parent.glob(f"Dataset{new_id:03d}_*/{RECORD}")
    exists = any(optional_json(record).get("labelled") == kept for record in records)
    if is_drawn and not ignore_twins and not exists:  # a split of an earlier version stays
        try:
            groups = find_training_twins(source, count_usable_processes())
        except UserError as error:
            raise UserError(
                f"near-twins cannot be looked for: {error.what}", error.problems,
                fix=f"{error.fix or 'correct the data set'}; or draw without: --ignore-twins",
            ) from error  # fmt: skip
        if groups:
            count = sum(map(len, groups))
            logger.info(f"{count} images have a near-twin, and are drawn with it (--ignore-twins)")
            kept, tests = choose(group=partial(join_twins, groups=groups))
    target = name_target()
    hidden = Path(hidden_labels or source.parent / f"hidden_labels_{target.name}")
    made = write_split(source, target, kept, hidden, symlink, tests, sparsity, seed)
    status = "wrote" if made.is_new else "nothing to do, it exists:"
    logger.info(f"{status} {made.folder}: {made.description}; hidden labels: {made.hidden_labels}")
    logger.info(f"next: semi_nnunet preprocess -d {new_id}")
    return made
