"""The cases of a training: those of its fold, and the unlabelled ones that it sees.

Missing folds are made of whole patients; present ones are checked before use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.loading.unlabelled import IgnoredVoxels, LocationPrior, UnlabelledCases
from semi_nnunet.raw.folds import (
    PatientOf,
    case_as_patient,
    exclude_patients_of,
    group_by_patient,
    load_folds,
    make_folds,
    read_pseudo_labelled_cases,
    require_whole_patients,
    save_folds,
)
from semi_nnunet.raw.layout import SPLITS_FILE
from semi_nnunet.training.filtering import ImageFilter
from semi_nnunet.training.foreground import ForegroundLocator
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.util.errors import UserError
from semi_nnunet.verify.twins import join_known_twins


@dataclass(frozen=True)
class UnlabelledSelection:
    """The unlabelled cases that a training sees, after each step of their selection.

    Args:
        preprocessed: finished cases of the configuration, all or those of ``semi_nnunet select``.
        in_fold: those of patients whom the fold does not validate on, and the partly labelled ones.
        trained_on: those of the fold that the last filtering kept.
    """

    preprocessed: list[str]
    in_fold: list[str]
    trained_on: list[str]


class UnlabelledPool:
    """The unlabelled cases of a configuration, with the results of filtering and locating.

    Args:
        folder: folder of the preprocessed unlabelled cases.
        command: command that preprocesses them, for messages.
        ignored: labelled training cases whose ignored voxels count as unlabelled, or None.

    Attributes:
        kept: cases that the last filtering kept; None before the first one.
        located: case -> where the network sees foreground; empty before the first locating.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        image_filter: ImageFilter,
        locator: ForegroundLocator,
        ignored: IgnoredVoxels | None = None,
    ):
        self.folder, self.command, self.ignored = folder, command, ignored
        self.filter, self.locator = image_filter, locator
        self.kept: set[str] | None = None
        self.located: Mapping[str, LocationPrior] = {}
        self._located_epoch: int | None = None
        self._preprocessed: list[str] | None = None

    # ---- cases

    def select(
        self,
        labelled: Sequence[str],
        fold: int | str,
        get_validation_cases: Callable[[], Sequence[str]],
        patient_of: PatientOf,
    ) -> UnlabelledSelection:
        """Select the unlabelled cases that a training sees.

        The finished cases are listed once, so that a training does not change while more cases are
        preprocessed. Fold "all" holds out no patients.

        Args:
            get_validation_cases: returns the validation cases of the fold.

        Raises:
            UserError: there are no such cases, or a case is also labelled.
        """
        partly_labelled = self.ignored.cases if self.ignored else ()
        if self._preprocessed is None:
            cases = UnlabelledCases(self.folder, self.command)
            self._preprocessed = cases.all(labelled, may_be_empty=bool(partly_labelled))
        preprocessed = in_fold = self._preprocessed
        if fold != "all" and patient_of is not case_as_patient:  # else no patient is also labelled
            in_fold = exclude_patients_of(preprocessed, get_validation_cases(), patient_of)
        in_fold = [*in_fold, *partly_labelled]
        if not in_fold:
            raise UserError(
                f"training on unlabelled images needs some, but all {len(preprocessed)} are of "
                f"patients whom fold {fold} validates on",
                fix="put images of others into imagesUn",
            )
        trained_on = [case for case in in_fold if self.kept is None or case in self.kept]
        return UnlabelledSelection(preprocessed, in_fold, trained_on)

    # ---- the schedule

    def check(self) -> None:
        """Raise before the first step if the settings' filtering or locating is impossible."""
        self.filter.check()
        self.locator.check()

    def begin_epoch(
        self, epoch: int, select: Callable[[], UnlabelledSelection], predictor: CasePredictor
    ) -> bool:
        """Filter the images and locate foreground if the settings say so.

        Args:
            select: returns the cases of the training.

        Returns:
            Whether the coming batches change.
        """
        settings, has_changed = self.filter.settings, False
        if self.filter.needs_snapshot(epoch):
            self.filter.save_snapshot(epoch, predictor)
        if epoch in settings.filter_epochs:
            cases = select().in_fold
            self.kept = set(self.filter.filter_cases(epoch, self.folder, cases, predictor))
            has_changed = True
        if epoch in settings.locate_epochs:
            cases = select().in_fold
            self.located = self.locator.locate(epoch, self.folder, cases, predictor)
            self._located_epoch, has_changed = epoch, True
        return has_changed

    # ---- resuming

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        kept_cases = None if self.kept is None else sorted(self.kept)
        return {"kept": kept_cases, "located_epoch": self._located_epoch}

    def restore(self, state: Mapping[str, Any], reads_positions: bool) -> None:
        """Restore a state.

        Args:
            state: :meth:`state`; may lack keys in checkpoints of earlier versions.
            reads_positions: whether patches will be sampled, so that the positions are needed.

        Raises:
            UserError: the file of the positions is missing.
        """
        kept_cases = state.get("kept")
        self.kept = None if kept_cases is None else set(kept_cases)
        self._located_epoch = state.get("located_epoch")
        if self._located_epoch is not None and reads_positions:
            self.located = self.locator.read(self._located_epoch)


# ---- folds ----


def require_fold(
    preprocessed: Path, fold: int, cases: Sequence[str], patient_of: PatientOf
) -> None:
    """Raise if the file of folds lacks a fold; write the file if it is missing.

    nnU-Net would split at random for a fold that the file does not have. The file is written
    atomically, because one DDP process may read it while another writes it. Fewer than five
    patients get one fold each.
    """
    path = preprocessed / SPLITS_FILE
    if not path.exists():
        group_of = join_known_twins(patient_of, preprocessed)
        folds = make_folds(cases, group_of, read_pseudo_labelled_cases(preprocessed))
        if not folds:
            raise UserError(
                f"fold {fold} needs a training and a validation patient, found {len(cases)} "
                f"labelled cases of {len(group_by_patient(cases, patient_of))}",
                fix="train fold 'all'",
            )
        save_folds(preprocessed, folds)
    count = len(load_folds(preprocessed))
    if fold >= count:
        raise UserError(
            f"{path} has {count} folds, but fold {fold} was requested (nnU-Net would split at "
            f"random)",
            fix=f"choose one of 0 to {count - 1}, or 'all'" if count else "train fold 'all'",
        )


def require_usable_split(
    preprocessed: Path,
    fold: int | str,
    split: tuple[Sequence[str], Sequence[str]],
    cases: Collection[str],
    patient_of: PatientOf,
) -> None:
    """Raise if the training and validation cases of a fold cannot be used.

    Args:
        split: training and validation cases.
    """
    path, (training, validation) = preprocessed / SPLITS_FILE, split
    missing = sorted({*training, *validation} - {*cases})
    if missing or not training or not validation:
        defect = f"names cases that are not preprocessed: {', '.join(missing)}"
        side = "training" if validation else "validation"
        raise UserError(
            f"fold {fold} of {path} {defect if missing else f'has no {side} case'}",
            fix="correct or delete that file",
        )
    if fold != "all":
        require_whole_patients(
            path, int(fold), {"train": [*training], "val": [*validation]}, patient_of
        )
