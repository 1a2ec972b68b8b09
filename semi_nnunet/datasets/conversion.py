"""Write an nnU-Net raw data set from the files of a benchmark, completely or not at all.

Every labelled case goes to imagesTr and labelsTr; ``semi_nnunet split`` hides labels afterwards.
Cases without a label go to imagesUn, and published validation cases to imagesVal and labelsVal,
which no training sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from semi_nnunet.datasets.volumes import read_volume
from semi_nnunet.raw.classes import ANNOTATED_KEY as ANNOTATED
from semi_nnunet.raw.description import UNLABELLED_DOMAIN
from semi_nnunet.raw.domains import DOMAIN_KEY
from semi_nnunet.raw.folds import PATIENT_KEY
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    SUBSETS_FILE,
    require_unchanged_source,
    was_dataset_made,
)
from semi_nnunet.raw.readers import COPY_AGAIN, BrokenFileError
from semi_nnunet.util.errors import FULL_DISK_ERRNOS, Problem, raise_if_any, shorten_reason
from semi_nnunet.util.files import could_not_write, folder_aside, require_space, write_json
from semi_nnunet.util.parallel import in_processes
from semi_nnunet.util.provenance import Inputs, recorded

RECORD = "conversion.json"  # the command that made the data set
MADE_FROM = "conversion_from.json"  # the files that it was made from
PARTS = {"Tr": "training", "Un": "unlabelled", "Val": "validation", "Ts": "test"}

WriteFile = Callable[[Path], None]  # writes one file; importable by a new process


@dataclass(frozen=True)
class ConvertedCase:
    """A case of the new data set.

    Args:
        name: its identifier.
        part: a key of ``PARTS``.
        image: writes the image to a path.
        label: writes the label, if the case has one.
        where: the source, for error messages.
    """

    name: str
    part: str
    image: WriteFile
    label: WriteFile | None
    where: str


@dataclass(frozen=True)
class Conversion:
    """The plan of a new data set.

    Args:
        name: of the new data set, without its number.
        channels: names of the channels; several channels are in one colour file.
        labels: names of the values 1, 2, ...
        cases: of all parts.
        reference: to cite.
        subsets: published choices of labelled cases.
        file_ending: of images and labels.
        patient: regular expression of the patient in a name; ``None``: every case is a patient.
        partly_labelled: a training label annotates only the classes it contains.
        domain: regular expression of the scanner or centre in a name; ``None``: unknown.
        other_domain: the unlabelled cases have another modality, such as MR instead of CT.
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
    domain: str | None = None

    @cached_property
    def counts(self) -> dict[str, int]:
        """Part of the data set -> its number of cases."""
        return {part: sum(case.part == part for case in self.cases) for part in PARTS}

    def dataset_json(self, values: Mapping[str, frozenset[int]]) -> dict[str, Any]:
        """Return the content of dataset.json.

        Args:
            values: case -> the values of its label, if labels are partial.
        """
        labels = {"background": 0} | {name: i for i, name in enumerate(self.labels, start=1)}
        annotated = self.list_annotated(values)
        return {
            "name": self.name,
            "reference": self.reference,
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": labels,
            "numTraining": self.counts["Tr"],
            "file_ending": self.file_ending,
            **({} if self.patient is None else {PATIENT_KEY: self.patient}),
            **({} if self.domain is None else {DOMAIN_KEY: self.domain}),
            **({UNLABELLED_DOMAIN: "other"} if self.other_domain else {}),
            **({ANNOTATED: annotated} if annotated else {}),
        }

    def list_annotated(self, values: Mapping[str, frozenset[int]]) -> dict[str, list[str]]:
        """Return case -> names of the annotated classes, for labels that lack a class."""
        annotated = {
            case: [name for value, name in enumerate(self.labels, start=1) if value in present]
            for case, present in sorted(values.items())
        }
        return {case: names for case, names in annotated.items() if len(names) < len(self.labels)}


def write_conversion(
    conversion: Conversion,
    target: Path,
    record: Mapping[str, Any],
    num_processes: int,
    inputs: Inputs = MappingProxyType({}),
) -> bool:
    """Write a data set under a temporary name, then rename it.

    Args:
        conversion: the plan of the data set.
        target: the new raw data set.
        record: the options of the command, for conversion.json.
        num_processes: up to 1 means this process.
        inputs: the files of the download, to notice later changes.

    Returns:
        False if the same conversion has already been done, and nothing is written.

    Raises:
        UserError: ``target`` holds something else or was made from files that have changed since,
            source files cannot be used, or the disk is full.
    """
    times = Counter(case.name for case in conversion.cases)
    repeated = [
        Problem(case.where, f"another file is case {case.name}, too", "keep one of them")
        for case in conversion.cases
        if times[case.name] > 1
    ]
    raise_if_any("Each case needs a name of its own:", repeated)
    content = {**record, "cases": conversion.counts}
    if was_dataset_made(target, RECORD, content):
        fix = f"choose another number, or remove {target} and convert again"
        require_unchanged_source(target / MADE_FROM, inputs, "the download", fix)
        return False
    with (
        folder_aside(target, "Nothing was converted") as folder,
        recorded(folder / MADE_FROM, inputs),
    ):
        for case in conversion.cases:
            for kind in ("images", "labels") if case.label else ("images",):
                (folder / f"{kind}{case.part}").mkdir(parents=True, exist_ok=True)
        write = partial(_write_case, folder, conversion.file_ending, conversion.partly_labelled)
        converted = in_processes(write, conversion.cases, num_processes, "converts images")
        bar = {"total": len(conversion.cases), "unit": "case", "disable": None}
        results = list(tqdm(converted, desc="converting", **bar))
        problems = [result for result in results if isinstance(result, Problem)]
        raise_if_any("Nothing was written, because some files cannot be converted:", problems)
        pairs = zip(conversion.cases, results, strict=True)
        values = {case.name: result for case, result in pairs if isinstance(result, frozenset)}
        if conversion.subsets:
            lists = {str(len(cases)): list(cases) for cases in conversion.subsets}
            write_json(folder / SUBSETS_FILE, lists)
        write_json(folder / DATASET_JSON, conversion.dataset_json(values))
        write_json(folder / RECORD, content)
    return True


def _write_case(
    folder: Path, ending: str, is_partial: bool, case: ConvertedCase
) -> Problem | frozenset[int] | None:
    """Write a case; return its problem, or the values of a partial label."""
    try:
        case.image(folder / f"images{case.part}" / f"{case.name}_0000{ending}")
        if case.label is not None:
            label = folder / f"labels{case.part}" / f"{case.name}{ending}"
            case.label(label)
            if is_partial and case.part == "Tr":
                voxels = sitk.GetArrayFromImage(read_volume(label))
                values = frozenset(map(int, np.unique(voxels)))
                if values <= {0}:
                    what = "its label shows no class, so it is unknown which ones were annotated"
                    fix = "move the image to the unlabelled ones, or remove it"
                    return Problem(case.where, what, fix)
                return values
    except BrokenFileError as error:
        return Problem(case.where, str(error), error.fix)
    except Exception as error:  # the other files are checked, too
        if isinstance(error, OSError) and error.errno in FULL_DISK_ERRNOS:
            what, state = f"{case.name} to {folder.parent}", "Nothing was converted"
            raise could_not_write(what, error, folder, state=state) from error
        require_space(folder)  # SimpleITK does not report a full disk
        return Problem(case.where, f"cannot be converted: {shorten_reason(error)}", COPY_AGAIN)
    return None
