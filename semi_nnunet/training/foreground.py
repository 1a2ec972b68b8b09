"""Where the deployed network sees foreground in the unlabelled images, for sampling patches there.

At stated epochs (``locate_epochs``) it predicts every unlabelled image; from then on, oversampled
patches are centred on that image's own foreground, a class at random, as nnU-Net does with labelled
ones. Images in which it sees none are sampled where the labelled cases have foreground.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.data.unlabelled import LocationPrior
from semi_nnunet.settings.common import SemiSettings, require_epochs
from semi_nnunet.training.networks_in_training import NetworksInTraining
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.training.run_log import Say
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_npz

LOCATIONS = 200  # of an image, shared by its classes: there may be 100,000 images


def classes_of(label_manager: Any) -> list[Hashable]:
    """The foreground classes or regions, as nnU-Net names them where it samples patches."""
    has_regions = label_manager.has_regions
    return list(
        label_manager.foreground_regions if has_regions else label_manager.foreground_labels
    )


@dataclass(frozen=True)
class ForegroundLocator:
    """Finds foreground in the unlabelled images of a training.

    Args:
        settings: ``locate_epochs``, ``unlabelled_foreground_oversampling``.
        folder: of the fold's results.
        networks: of the training.
        classes: :func:`classes_of` the labels.
        say: prints a line into the training's log.
    """

    settings: SemiSettings
    folder: Path
    networks: NetworksInTraining
    classes: Sequence[Hashable]
    say: Say

    def check(self) -> None:
        """Check, before the first step, that what is asked for can be done and has an effect.

        Raises:
            UserError: an epoch that never comes, or no oversampling that would use it.
        """
        require_epochs(self.settings, "locate_epochs")
        if self.settings.locate_epochs and not self.settings.unlabelled_foreground_oversampling:
            raise UserError(
                "locate_epochs needs unlabelled_foreground_oversampling above 0, got 0",
                fix="set both in plans['semi'], or neither",
            )

    def locate(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> dict[str, LocationPrior]:
        """Case -> class -> (N, 3) positions relative to the image; also written, for resuming.

        Args:
            epoch: that begins.
            images: folder of the preprocessed unlabelled cases.
            cases: of the folder.
            predictor: of the training.
        """
        found = dict[str, LocationPrior]()
        networks = {"deployed": self.networks.prediction_network()}
        most = max(1, LOCATIONS // len(self.classes))
        title = "looking for foreground"
        for case, logits, _ in predictor.predict(networks, images, cases, title, mirror=False):
            probs = self.networks.probs(logits["deployed"][None])[0]
            pairs = zip(
                self.classes, foreground_labels(probs, self.networks.exclusive), strict=True
            )
            some = {key: some_positions(label, most) for key, label in pairs}
            found[case] = {key: positions for key, positions in some.items() if len(positions)}
        found = predictor.ranks.together(found)
        with_any = sum(map(bool, found.values()))
        self.say(
            f"epoch {epoch}: foreground is seen in {with_any} of {len(found)} unlabelled images"
        )
        if predictor.ranks.number == 0:
            write(self._file(epoch), found, self.classes)
        return found

    def read(self, epoch: int) -> dict[str, LocationPrior]:
        """What was found at the start of ``epoch``.

        Raises:
            UserError: the file is gone.
        """
        return read(self._file(epoch), self.classes)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"foreground_epoch_{epoch}.npz"


def some_positions(label: torch.Tensor, most: int) -> np.ndarray:
    """At most ``most`` voxels of a bool (*spatial), the same each time: (N, 3) in [0, 1).

    Drawn, not every n-th: where n divides the rows, these would lie in a few planes.
    """
    voxels = label.nonzero().numpy()
    count = min(most, len(voxels))
    drawn = np.random.default_rng(0).choice(len(voxels), count, replace=False)
    return ((voxels[np.sort(drawn)] + 0.5) / np.asarray(label.shape)).astype(np.float32)


def write(path: Path, found: Mapping[str, LocationPrior], classes: Sequence[Hashable]) -> None:
    """Store what a :class:`ForegroundLocator` found."""
    nothing, cases = np.zeros((0, 3), np.float32), sorted(found)
    parts = [found[case].get(key, nothing) for case in cases for key in classes]
    write_npz(
        path,
        cases=np.array(cases, dtype=str),
        counts=np.array([len(part) for part in parts], dtype=np.int64),
        positions=np.concatenate([nothing, *parts]),
    )


def read(path: Path, classes: Sequence[Hashable]) -> dict[str, LocationPrior]:
    """What :func:`write` stored.

    Raises:
        UserError: the file is gone.
    """
    if not path.is_file():
        raise UserError(
            f"this training samples unlabelled patches by {path}, which is missing",
            fix="put it back, or train from the start",
        )
    with np.load(path) as stored:
        cases, ends = stored["cases"].tolist(), np.cumsum(stored["counts"])
        parts = iter(np.split(stored["positions"], ends[:-1]))
    found = {case: {key: next(parts) for key in classes} for case in cases}
    return {case: {k: v for k, v in some.items() if len(v)} for case, some in found.items()}
