"""nnU-Net's folders of one data set and their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

from semi_nnunet.raw import folds as patients
from semi_nnunet.raw.description import find_cases, list_cases
from semi_nnunet.raw.domains import DomainOf, DomainRule
from semi_nnunet.raw.layout import DATASET_JSON, GROUND_TRUTH, require_paths, resolve_dataset_name
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import unique, unknown
from semi_nnunet.util.verb_commands import build_command

ALL = "all"  # the fold that trains and validates on every labelled case
VALIDATION_FOLDER, TEST_FOLDER = "validation", "test"  # of predictions, in the folder of a fold
COPIED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Folders:
    """The folders of one data set in nnUNet_raw, nnUNet_preprocessed and nnUNet_results.

    >>> folders = Folders(Path("raw/D1"), Path("preprocessed/D1"), Path("results/D1"))
    >>> folders.references.as_posix()
    'preprocessed/D1/gt_segmentations'
    """

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def test_images(self) -> Path | None:
        """imagesTs, or None if it is missing or empty."""
        return find_nonempty_folder(self.raw / "imagesTs")

    @property
    def test_labels(self) -> Path | None:
        """labelsTs, or None if it is missing or empty."""
        return find_nonempty_folder(self.raw / "labelsTs")

    @property
    def references(self) -> Path:
        """nnU-Net's copy of the labels of the labelled cases."""
        return self.preprocessed / GROUND_TRUTH

    @property
    def benchmarks(self) -> Path:
        """The folder of the rates that ``semi_nnunet benchmark`` measured."""
        return self.results / "semi_benchmark"

    def evaluation_command(self, predictions: Path, references: Path, processes: int) -> Command:
        """Return the command that measures predictions; ``references`` may hold other cases too."""
        return build_command(
            "evaluate", predictions=predictions, references=references,
            dataset_json=self.preprocessed / DATASET_JSON, processes=processes, incomplete=True,
        )  # fmt: skip

    @property
    def file_ending(self) -> str:
        """The file ending of images and labels, also where only the results are left."""
        known = self.preprocessed / DATASET_JSON, self.raw / DATASET_JSON
        path = next((path for path in known if path.is_file()), None)
        path = path or min(self.results.glob(f"*/{DATASET_JSON}"), default=known[0])
        return str(read_json(path)["file_ending"])

    def labelled_cases(self) -> list[str]:
        """Return the sorted cases that are preprocessed with a label."""
        return list_cases(self.references, self.file_ending)

    def test_cases(self) -> list[str]:
        """Return the names of the cases in imagesTs."""
        if not self.test_images:
            return []
        return list(find_cases(self.test_images, self.file_ending))

    def test_cases_without_labels(self) -> list[str]:
        """Return the cases of imagesTs that lack a label; [] if labelsTs is empty."""
        labels = self.test_labels
        if labels is None:
            return []
        ending = self.file_ending
        return [case for case in self.test_cases() if not (labels / f"{case}{ending}").is_file()]


def find_folders(dataset: str) -> Folders:
    """Find nnU-Net's folders of a data set, given by name or number.

    Raises:
        UserError: none of nnU-Net's folders holds the data set.
    """
    require_paths()
    name = resolve_dataset_name(dataset)
    roots = [Path(root.require()) for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)]
    if not any((root / name).is_dir() for root in roots):
        datasets = [path.name for root in roots for path in sorted(root.glob("Dataset*_*"))]
        problems = unknown("data set", [name], unique(datasets))
        raise UserError("There is no such data set:", list(problems))
    return Folders(*(root / name for root in roots))


def load_patient_finder(folders: Folders) -> patients.PatientOf:
    """Return the function that maps a case to its patient.

    The rule comes from the first dataset.json that exists: of the raw data, the preprocessed data,
    then the trained models. Without one, every case is its own patient.
    """
    models = sorted(folders.results.glob("*__*__*"))
    for folder in (folders.raw, folders.preprocessed, *models):
        if description := optional_json(folder / DATASET_JSON):
            return patients.build_patient_finder(description)
    return patients.case_as_patient


def load_domain_finder(folders: Folders) -> DomainOf | None:
    """Return the function that maps a case to its domain, or None if the data set names none.

    The rule comes from the preprocessed data, whose cases it was verified on, or else the raw data.
    """
    for folder in (folders.preprocessed, folders.raw):
        if description := optional_json(folder / DATASET_JSON):
            rule = DomainRule.of(description)
            return None if rule is None else rule.domain_of
    return None


def find_nonempty_folder(folder: Path) -> Path | None:
    """Return the folder if it holds a visible file, else None."""
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    return folder


def is_older(result: Path, source: Path) -> bool:
    """Return whether a result is older than the file that it was computed from.

    Copying a folder can shift times by seconds, so a difference below a minute does not count.
    """
    if not (result.is_file() and source.is_file()):
        return False
    return result.stat().st_mtime < source.stat().st_mtime - COPIED_WITHIN_S
