"""Preprocessed unlabelled images as a data set for nnU-Net's data loader."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from semi_nnunet.preprocessing.manifest import Manifest, read_sources
from semi_nnunet.raw.layout import SELECTED_FILE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import optional_json, read_names
from semi_nnunet.util.names import format_count, list_first

LocationPrior = Mapping[Any, np.ndarray]
UNLABELLED = 0  # in segmentations of images without a label


@dataclass(frozen=True)
class IgnoredVoxels:
    """Labelled cases whose ignored voxels count as unlabelled.

    Args:
        folder: of the preprocessed labelled cases.
        cases: their names.
        label: nnU-Net's ignore label.
    """

    folder: Path
    cases: tuple[str, ...]
    label: int


def compute_foreground_prior(
    labelled: nnUNetBaseDataset, cases: Sequence[str], locations_per_class: int = 2000
) -> dict[Any, np.ndarray]:
    """Return positions of foreground, relative to the image: class -> (N, 3) in [0, 1).

    Unlabelled images are sampled at these positions of the labelled images.

    Args:
        locations_per_class: approximate number of positions to keep.
    """
    positions: dict[Any, list[np.ndarray]] = {}
    for case in sorted(cases):
        data, _, _, properties = labelled.load_case(case)
        for key, locations in properties["class_locations"].items():
            if len(locations) and not (isinstance(key, tuple) and -1 in key):
                step = max(1, len(locations) * len(cases) // locations_per_class)
                relative = (np.asarray(locations)[::step, 1:] + 0.5) / np.asarray(data.shape[1:])
                positions.setdefault(key, []).append(relative)
    return {key: np.concatenate(arrays) for key, arrays in positions.items()}


class UnlabelledCases:
    """The finished unlabelled cases of one configuration.

    Args:
        folder: the preprocessed folder.
        command: makes the folder; named in errors.
    """

    def __init__(self, folder: Path, command: str = "semi_nnunet preprocess"):
        self.folder, self.command = folder, command

    def present(self) -> list[str]:
        """Return the finished cases, only selected ones if ``semi_nnunet select`` was used."""
        return self._filter_selected(self._list_finished())

    def all(self, labelled: Sequence[str], may_be_empty: bool = False) -> list[str]:
        """Return the cases that are :meth:`present`.

        Raises:
            UserError: there are none, unless ``may_be_empty``; files are damaged, or a case is also
                labelled.
        """
        finished = self._list_finished()
        cases = self._filter_selected(finished)
        self._require_complete(finished)
        if not cases and not may_be_empty:
            raise UserError(
                f"training on unlabelled images needs some, found none in {self.folder}",
                fix=f"put them into imagesUn of the raw data set and run {self.command}",
            )
        contradictory = sorted(set(labelled).intersection(cases))
        if contradictory:
            raise UserError(
                f"a case must be labelled or unlabelled, not both: {', '.join(contradictory)}",
                fix=f"remove it from imagesUn or imagesTr and run {self.command} again",
            )
        return cases

    def _list_finished(self) -> list[str]:
        return sorted(Manifest(self.folder).present())

    def _require_complete(self, finished: Sequence[str]) -> None:
        """Raise if a file belongs to no finished case: it, or the list of cases, is damaged."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        names = [name for name in names if not name.startswith(".")]  # Finder writes .DS_Store
        stems = {name.removesuffix(".pkl").removesuffix(".b2nd") for name in names}
        cases = {stem.removesuffix("_seg") for stem in stems}  # labels are never read
        if broken := sorted(cases.difference(finished)):
            raise UserError(
                f"{len(broken)} preprocessed unlabelled cases in {self.folder} are damaged or not "
                f"in its list: {list_first(broken)}",
                fix=f"{self.command}, which makes only these again",
            )

    def _filter_selected(self, cases: list[str]) -> list[str]:
        path = self.folder.parent / SELECTED_FILE
        if not (cases and path.is_file()):
            return cases
        selected = {*read_names(path, "cases")}
        if not selected.intersection(cases):
            listed = format_count(selected, "image")
            raise UserError(
                f"{path} selects {listed}, none of them among the preprocessed unlabelled images",
                fix="select again, or semi_nnunet select --undo",
            )
        recorded, now = optional_json(path).get("images", {}), hash_images(self.folder)
        changed = [case for case in recorded if now.get(case, recorded[case]) != recorded[case]]
        if changed:
            raise UserError(
                f"images have changed since semi_nnunet select: {list_first(changed)}",
                fix="select again, or semi_nnunet select --undo",
            )
        return [case for case in cases if case in selected]


def hash_images(folder: Path) -> dict[str, str]:
    """Return case -> short hash of the image of each finished case of a preprocessed folder."""
    return {case: source.partition("-")[0] for case, source in read_sources(folder).items()}


class UnlabelledDataset(nnUNetBaseDataset):
    """Images of a ``*_unlabeled`` folder.

    ``load_case`` returns nnU-Net's four values. The segmentation is a read-only array of one value
    that takes no memory and means "unlabelled"; nnU-Net's loader pads it with -1. It is 0 or, with
    labelled cases whose ignored voxels count as unlabelled, the ignore label.

    Args:
        folder: the preprocessed folder.
        cases: the identifiers to use; those of ``ignored``, too.
        prior: :func:`compute_foreground_prior`, or {} for uniform sampling.
        folder_with_segs_from_previous_stage: predictions of a cascade's previous stage, or None.
        located: case -> positions at which a network sees foreground, relative to the image; if
            not empty, they replace the prior of the case.
        ignored: labelled cases whose ignored voxels count as unlabelled, or None.
    """

    def __init__(
        self,
        folder: str | Path,
        cases: Sequence[str],
        prior: LocationPrior,
        folder_with_segs_from_previous_stage: str | None = None,
        located: Mapping[str, LocationPrior] | None = None,
        ignored: IgnoredVoxels | None = None,
    ):
        super().__init__(str(folder), list(cases), folder_with_segs_from_previous_stage)
        self.prior, self.located, self.ignored = prior, located or {}, ignored
        blosc2.set_nthreads(1)

    def load_case(self, identifier: str) -> tuple[Any, np.ndarray, Any, dict[str, Any]]:
        ignored = self.ignored
        is_labelled = ignored is not None and identifier in ignored.cases
        folder = Path(ignored.folder if ignored and is_labelled else self.source_folder)
        data = self._open(folder / f"{identifier}.b2nd")
        previous = self.folder_with_segs_from_previous_stage
        seg_prev = None if previous is None else self._open(Path(previous) / f"{identifier}.b2nd")
        properties = dict(load_pickle(str(folder / f"{identifier}.pkl")))
        shape = data.shape[1:]
        properties["class_locations"] = {
            key: np.c_[np.zeros(len(relative), dtype=int), (relative * shape).astype(int)]
            for key, relative in (self.located.get(identifier) or self.prior).items()
        }
        if is_labelled:
            seg = self._open(folder / f"{identifier}_seg.b2nd")
        else:
            value = UNLABELLED if ignored is None else ignored.label
            kind = np.min_scalar_type(value)  # unsigned, so that nnU-Net's int16 is a copy of it
            seg = np.broadcast_to(np.array(value, kind), (1, *shape))
        return data, seg, seg_prev, properties

    @staticmethod
    def _open(path: Path) -> Any:
        options = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: not on Windows
        return blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **options)

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        names = (path.stem for path in Path(folder).glob("*.b2nd"))
        return sorted(name for name in names if not name.endswith("_seg"))

    @staticmethod
    def save_case(
        data: np.ndarray,
        seg: np.ndarray,
        properties: dict[str, Any],
        output_filename_truncated: str,
    ) -> None:
        raise NotImplementedError("semi_nnunet preprocess writes the unlabelled cases")
