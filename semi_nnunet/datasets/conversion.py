"""Write an nnU-Net raw data set from somebody else's files: all of it, or nothing.

Every case whose label is known goes to imagesTr and labelsTr with its label: ``semi_nnunet split``
hides labels afterwards. imagesUn gets the cases nobody labelled. The published validation cases,
if there are any, go to imagesVal and labelsVal, which no training sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from semi_nnunet.datasets.volumes import read_volume
from semi_nnunet.raw.classes import ANNOTATED_KEY as ANNOTATED
from semi_nnunet.raw.description import UNLABELLED_DOMAIN
from semi_nnunet.raw.folds import PATIENT_KEY
from semi_nnunet.raw.layout import SUBSETS_FILE, was_dataset_made
from semi_nnunet.raw.readers import COPY_AGAIN, BrokenFileError, shorten_reason
from semi_nnunet.util.errors import FULL_DISK_ERRNOS, Problem, raise_if_any
from semi_nnunet.util.files import could_not_write, folder_aside, require_space, write_json
from semi_nnunet.util.parallel import in_processes

RECORD = "conversion.json"  # how the data set was made
PARTS = {"Tr": "training", "Un": "unlabelled", "Val": "validation", "Ts": "test"}

Step = Callable[[Path], None]  # writes one file; importable by a new process


@dataclass(frozen=True)
class ConvertedCase:
    """One case of the new data set.

    Args:
        name: its identifier.
        part: a key of ``PARTS``.
        image: writes the image to the path it is given.
        label: writes the label; None if there is none.
        where: the source, for errors.
    """

    name: str
    part: str
    image: Step
    label: Step | None
    where: str


@dataclass(frozen=True)
class Conversion:
    """A data set that can be written.

    Args:
        name: of the new data set, without its number.
        channels: names of the image's channels; several mean one colour file.
        labels: names of the values 1, 2, ...
        cases: all of them.
        reference: whom to cite.
        subsets: the published choices of labelled cases, by their number.
        file_ending: of images and labels.
        patient: what of a name is the patient, as a regular expression; None: every case is one.
        partly_labelled: a training label annotates the classes that it holds, and no other.
        other_domain: the cases that are to be unlabelled are of another kind, such as MR to CT.
    """

    name: str
    channels: Sequence[str]
    labels: Sequence[str]
    cases: Sequence[ConvertedCase]
    reference: str
    subsets: Sequence[Sequence[str]] = ()
    file_ending: str = ".nii.gz"
    patient: str | None = None
    other_domain: bool = False
    partly_labelled: bool = False
    counts: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = {part: sum(case.part == part for case in self.cases) for part in PARTS}
        object.__setattr__(self, "counts", counts)

    def dataset_json(self, held: Mapping[str, frozenset[int]]) -> dict[str, Any]:
        """The content of dataset.json.

        Args:
            held: case -> the values of its label, where labels are partial.
        """
        labels = {"background": 0} | {name: i for i, name in enumerate(self.labels, start=1)}
        annotated = self.annotated(held)
        return {
            "name": self.name,
            "reference": self.reference,
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": labels,
            "numTraining": self.counts["Tr"],
            "file_ending": self.file_ending,
            **({} if self.patient is None else {PATIENT_KEY: self.patient}),
            **({UNLABELLED_DOMAIN: "other"} if self.other_domain else {}),
            **({ANNOTATED: annotated} if annotated else {}),
        }

    def annotated(self, held: Mapping[str, frozenset[int]]) -> dict[str, list[str]]:
        """The classes that each label holds, of those that do not hold all."""
        found = {
            case: [name for value, name in enumerate(self.labels, start=1) if value in values]
            for case, values in sorted(held.items())
        }
        return {case: names for case, names in found.items() if len(names) < len(self.labels)}


def write_conversion(
    conversion: Conversion, target: Path, record: Mapping[str, Any], num_processes: int
) -> bool:
    """Write the data set aside, then rename it: an interrupted one is never taken for finished.

    Args:
        conversion: what to write.
        target: the new raw data set.
        record: how it was asked for; goes to conversion.json.
        num_processes: up to 1 means in this process.

    Returns:
        False if the same conversion had been done before; then nothing is written.

    Raises:
        UserError: ``target`` holds something else, source files cannot be used, or the disk is
            full.
    """
    content = {**record, "cases": conversion.counts}
    if was_dataset_made(target, RECORD, content):
        return False
    with folder_aside(target, "Nothing was converted") as aside:
        for case in conversion.cases:
            for kind in ("images", "labels") if case.label else ("images",):
                (aside / f"{kind}{case.part}").mkdir(parents=True, exist_ok=True)
        work = partial(_write_case, aside, conversion.file_ending, conversion.partly_labelled)
        results = in_processes(work, conversion.cases, num_processes, "converts images")
        shown = {"total": len(conversion.cases), "unit": "case", "disable": None}
        written = list(tqdm(results, desc="converting", **shown))
        problems = [found for found in written if isinstance(found, Problem)]
        raise_if_any("Nothing was written, as some files cannot be converted:", problems)
        each = zip(conversion.cases, written, strict=True)
        held = {one.name: found for one, found in each if isinstance(found, frozenset)}
        if conversion.subsets:
            lists = {str(len(cases)): list(cases) for cases in conversion.subsets}
            write_json(aside / SUBSETS_FILE, lists)
        write_json(aside / "dataset.json", conversion.dataset_json(held))
        write_json(aside / RECORD, content)
    return True


def _write_case(
    aside: Path, ending: str, partly: bool, case: ConvertedCase
) -> Problem | frozenset[int] | None:
    """Write a case; returns what is wrong with it, or the values of a label that is partial."""
    try:
        case.image(aside / f"images{case.part}" / f"{case.name}_0000{ending}")
        if case.label is not None:
            label = aside / f"labels{case.part}" / f"{case.name}{ending}"
            case.label(label)
            if partly and case.part == "Tr":
                voxels = sitk.GetArrayViewFromImage(read_volume(label))
                return frozenset(map(int, np.unique(voxels)))
    except BrokenFileError as error:
        return Problem(case.where, str(error), error.fix)
    except Exception as error:  # one strange file must not hide the others
        if isinstance(error, OSError) and error.errno in FULL_DISK_ERRNOS:
            what, left = f"{case.name} to {aside.parent}", "Nothing was converted"
            raise could_not_write(what, error, aside, left=left) from error
        require_space(aside)  # a full disk is not the file's fault; SimpleITK does not tell
        return Problem(case.where, f"cannot be converted: {shorten_reason(error)}", COPY_AGAIN)
    return None
