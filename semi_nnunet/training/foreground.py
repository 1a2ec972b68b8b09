"""Locations of foreground that the network sees in unlabelled images, to sample patches there.

At the epochs of ``locate_epochs`` the deployed network predicts every unlabelled image. From then
on oversampled patches are centred on the image's own foreground, in a random class, as nnU-Net does
with labelled images. Images without predicted foreground are sampled where labelled cases have it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.loading.unlabelled import LocationPrior
from semi_nnunet.settings.common import SemiSettings, require_epochs
from semi_nnunet.training.prediction import CasePredictor, TrainingNetworks
from semi_nnunet.training.run_log import Say
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_npz

LOCATIONS = 200  # for all classes of an image: there may be 100,000 images


def list_sampled_classes(label_manager: Any) -> list[Hashable]:
    """Return the foreground classes or regions by the keys that nnU-Net samples patches with."""
    has_regions = label_manager.has_regions
    return list(
        label_manager.foreground_regions if has_regions else label_manager.foreground_labels
    )


@dataclass(frozen=True)
class ForegroundLocator:
    """Finds foreground in the unlabelled images of a training.

    Args:
        settings: ``locate_epochs``, ``unlabelled_foreground_oversampling``.
    """

    settings: SemiSettings
    folder: Path
    networks: TrainingNetworks
    classes: Sequence[Hashable]
    say: Say

    def check(self) -> None:
        """Raise before the first step if ``locate_epochs`` is impossible or has no effect."""
        require_epochs(self.settings, "locate_epochs")
        if self.settings.locate_epochs and not self.settings.unlabelled_foreground_oversampling:
            raise UserError(
                "locate_epochs needs unlabelled_foreground_oversampling above 0, got 0",
                fix="set both in plans['semi'], or neither",
            )

    def locate(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> dict[str, LocationPrior]:
        """Find foreground with the deployed network, and write the locations for resuming.

        Returns:
            Case -> class -> (N, 3) positions in [0, 1), relative to the image.
        """
        locations = dict[str, LocationPrior]()
        networks = {"deployed": self.networks.prediction_network()}
        per_class = max(1, LOCATIONS // len(self.classes))
        title = "looking for foreground"
        for case, logits, _ in predictor.predict(networks, images, cases, title, mirror=False):
            probs = self.networks.probs(logits["deployed"][None])[0]
            labels = foreground_labels(probs, self.networks.exclusive)
            positions = {
                key: sample_positions(label, per_class)
                for key, label in zip(self.classes, labels, strict=True)
            }
            locations[case] = {key: some for key, some in positions.items() if len(some)}
        locations = predictor.ranks.merge(locations)
        with_foreground = sum(map(bool, locations.values()))
        self.say(
            f"epoch {epoch}: foreground is seen in {with_foreground} of {len(locations)} "
            f"unlabelled images"
        )
        if predictor.ranks.rank == 0:
            write_locations(self._file(epoch), locations, self.classes)
        return locations

    def read(self, epoch: int) -> dict[str, LocationPrior]:
        """Read the locations that were found at the start of ``epoch``.

        Raises:
            UserError: the file is missing.
        """
        return read_locations(self._file(epoch), self.classes)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"foreground_epoch_{epoch}.npz"


def sample_positions(label: torch.Tensor, count: int) -> np.ndarray:
    """Draw at most ``count`` voxels of a bool (*spatial), equal in every call.

    Drawn at random: every n-th voxel would lie in a few planes if n divides the row length.

    >>> sample_positions(torch.tensor([[False, True]]), 5)
    array([[0.5 , 0.75]], dtype=float32)

    Returns:
        (N, axes) in [0, 1), relative to the image.
    """
    voxels = label.nonzero().numpy()
    drawn = np.random.default_rng(0).choice(len(voxels), min(count, len(voxels)), replace=False)
    return ((voxels[np.sort(drawn)] + 0.5) / np.asarray(label.shape)).astype(np.float32)


def write_locations(
    path: Path, locations: Mapping[str, LocationPrior], classes: Sequence[Hashable]
) -> None:
    """Write the locations of a :class:`ForegroundLocator`."""
    empty, cases = np.zeros((0, 3), np.float32), sorted(locations)
    positions = [locations[case].get(key, empty) for case in cases for key in classes]
    write_npz(
        path,
        cases=np.array(cases, dtype=str),
        counts=np.array([len(some) for some in positions], dtype=np.int64),
        positions=np.concatenate([empty, *positions]),
    )


def read_locations(path: Path, classes: Sequence[Hashable]) -> dict[str, LocationPrior]:
    """Read the file of :func:`write_locations`.

    Raises:
        UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(
            f"this training samples unlabelled patches by {path}, which is missing",
            fix="put it back, or train from the start",
        )
    with np.load(path) as stored:
        cases, ends = stored["cases"].tolist(), np.cumsum(stored["counts"])
        positions = iter(np.split(stored["positions"], ends[:-1]))
    locations = {case: {key: next(positions) for key in classes} for case in cases}
    return {
        case: {key: some for key, some in by_class.items() if len(some)}
        for case, by_class in locations.items()
    }
