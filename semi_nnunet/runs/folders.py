"""nnU-Net's folders of one data set, and what lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from semi_nnunet.data import patients
from semi_nnunet.data.layout import dataset_name, require_paths
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import unique, unknown

ALL = "all"  # the fold that trains on every labelled case and validates on them
VALIDATION_FOLDER, TEST_FOLDER = "validation", "test"  # of predictions, in the folder of a fold
COPIED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Folders:
    """nnU-Net's folders of one data set."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def test_images(self) -> Path | None:
        """imagesTs, if it holds anything."""
        return folder_with_files(self.raw / "imagesTs")

    def evaluation(self, predictions: Path, references: Path, processes: int) -> Command:
        """The command that measures predictions; there may be labels of others, too."""
        description = self.preprocessed / "dataset.json"
        where = ("-i", predictions, "-r", references, "--dataset-json", description)
        return ("semi_nnunet", "evaluate", *where, "-np", str(processes), "--partial")

    @property
    def references(self) -> Path:
        """The labels of the labelled cases, which nnU-Net keeps."""
        return self.preprocessed / "gt_segmentations"

    @property
    def test_labels(self) -> Path | None:
        """labelsTs, if it holds anything."""
        return folder_with_files(self.raw / "labelsTs")

    @property
    def file_ending(self) -> str:
        """The file ending of images and labels, of the preprocessed or else the raw data."""
        prepared = self.preprocessed / "dataset.json"
        path = prepared if prepared.is_file() else self.raw / "dataset.json"
        return str(read_json(path)["file_ending"])

    def labelled_cases(self) -> list[str]:
        """The cases that are preprocessed with a label, sorted."""
        ending = self.file_ending
        return sorted(p.name.removesuffix(ending) for p in self.references.glob(f"*{ending}"))

    def test_cases(self) -> list[str]:
        """The names of the cases in imagesTs."""
        if not self.test_images:
            return []
        images = str(self.test_images)
        return list(get_identifiers_from_splitted_dataset_folder(images, self.file_ending))

    def test_cases_without_labels(self) -> list[str]:
        """The cases of imagesTs that have no label, where labelsTs has labels of other cases."""
        labels = self.test_labels
        if labels is None:
            return []
        ending = self.file_ending
        return [case for case in self.test_cases() if not (labels / f"{case}{ending}").is_file()]


def folders_of(dataset: str) -> Folders:
    """nnU-Net's folders of a data set given by name or number."""
    require_paths()
    name = dataset_name(dataset)
    roots = [Path(root.require()) for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)]
    if not any((root / name).is_dir() for root in roots):
        there = unique([one.name for root in roots for one in sorted(root.glob("Dataset*_*"))])
        raise UserError("There is no such data set:", list(unknown("data set", [name], there)))
    return Folders(*(root / name for root in roots))


def patients_of(folders: Folders) -> patients.PatientOf:
    """Case -> its patient, as the raw data set says, or what is there of others."""
    models = sorted(folders.results.glob("*__*__*"))
    for folder in (folders.raw, folders.preprocessed, *models):
        if description := optional_json(folder / "dataset.json"):
            return patients.patient_finder(description)
    return patients.itself


def folder_with_files(folder: Path) -> Path | None:
    """The folder, if it is there and holds anything but what a file manager hides in it."""
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    return folder


def is_older(result: Path, source: Path) -> bool:
    """Whether a file is of before its source was made anew, such as a fold trained again by hand.

    Copying a folder may mix up times by seconds.
    """
    if not (result.is_file() and source.is_file()):
        return False
    return result.stat().st_mtime < source.stat().st_mtime - COPIED_WITHIN_S
