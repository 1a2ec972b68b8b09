"""The unlabelled images of a training: which it trains on, and where they show foreground."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.data.patients import PatientOf, apart_from, itself
from semi_nnunet.data.unlabelled import LocationPrior, UnlabelledCases
from semi_nnunet.training.filtering import ImageFilter
from semi_nnunet.training.foreground import ForegroundLocator
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.util.errors import UserError


class UnlabelledPool:
    """All unlabelled images that a fold may see, and what filtering and locating found of them.

    Attributes:
        kept: the cases that the last filtering kept; None: there was none yet.
        located: case -> where the network sees foreground; {}: it has not looked yet.

    Args:
        folder: of the preprocessed unlabelled cases.
        command: that makes it, for the error that there are none.
        image_filter, locator: that ask the networks of the training.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        image_filter: ImageFilter,
        locator: ForegroundLocator,
    ):
        self.folder, self.command = folder, command
        self.filter, self.locator = image_filter, locator
        self.kept: set[str] | None = None
        self.located: Mapping[str, LocationPrior] = {}
        self._located_epoch: int | None = None
        self._cases: list[str] | None = None

    # ---- cases

    def all(self, labelled: Sequence[str]) -> list[str]:
        """Every unlabelled case that is finished when this is first asked: a training keeps them.

        Args:
            labelled: the labelled cases of the data set.

        Raises:
            UserError: there are none, or one of them is also labelled.
        """
        if self._cases is None:
            self._cases = UnlabelledCases(self.folder, self.command).all(labelled)
        return self._cases

    def of_fold(
        self,
        labelled: Sequence[str],
        fold: int | str,
        validated: Callable[[], Sequence[str]],
        patient_of: PatientOf,
    ) -> list[str]:
        """The cases of patients whom the fold does not validate on; fold "all" holds out none.

        Args:
            labelled: the labelled cases of the data set.
            fold: its number, or "all".
            validated: gives the validation cases of the fold.
            patient_of: case -> its patient.

        Raises:
            UserError: there are none.
        """
        cases = self.all(labelled)
        if fold == "all" or patient_of is itself:  # a case is not also a labelled one
            return cases
        others = apart_from(cases, validated(), patient_of)
        if not others:
            raise UserError(
                f"training on unlabelled images needs some, but all {len(cases)} are of patients "
                f"whom fold {fold} validates on",
                fix="put images of others into imagesUn",
            )
        return others

    def trained_on(self, cases: Sequence[str]) -> list[str]:
        """The cases of the fold that the last filtering kept."""
        return [case for case in cases if self.kept is None or case in self.kept]

    # ---- the schedule

    def check(self) -> None:
        """Check, before the first step, that what the settings ask for can be done.

        Raises:
            UserError: it cannot.
        """
        self.filter.check()
        self.locator.check()

    def begin_epoch(
        self, epoch: int, cases: Callable[[], Sequence[str]], predictor: CasePredictor
    ) -> bool:
        """Filter and locate where the settings say so.

        Args:
            epoch: that begins.
            cases: gives those of the fold.
            predictor: of the training.

        Returns:
            Whether the batches to come change.
        """
        settings, changed = self.filter.settings, False
        if self.filter.takes_snapshot(epoch):
            self.filter.take_snapshot(epoch, predictor)
        if epoch in settings.filter_epochs:
            self.kept = set(self.filter.keep(epoch, self.folder, cases(), predictor))
            changed = True
        if epoch in settings.locate_epochs:
            self.located = self.locator.locate(epoch, self.folder, cases(), predictor)
            self._located_epoch, changed = epoch, True
        return changed

    # ---- resuming

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        kept = None if self.kept is None else sorted(self.kept)
        return {"kept": kept, "located_epoch": self._located_epoch}

    def restore(self, state: Mapping[str, Any], reads_positions: bool) -> None:
        """Take over the state of a checkpoint.

        Args:
            state: see :meth:`state`; checkpoints of before have parts of it.
            reads_positions: whether patches will be sampled, so that the positions are needed.

        Raises:
            UserError: the file of the positions is gone.
        """
        kept = state.get("kept")
        self.kept = None if kept is None else set(kept)
        self._located_epoch = state.get("located_epoch")
        if self._located_epoch is not None and reads_positions:
            self.located = self.locator.read(self._located_epoch)
