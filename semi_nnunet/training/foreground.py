"""Where the deployed network sees foreground in the unlabelled images, for sampling patches there.

At stated epochs (``locate_epochs``) it predicts every unlabelled image; from then on, oversampled
patches are centred on that image's own foreground, a class at random, as nnU-Net does with labelled
ones. Images in which it sees none are sampled where the labelled cases have foreground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.data.unlabelled import LocationPrior
from semi_nnunet.settings.common import require_epochs
from semi_nnunet.training.prediction import of_all_ranks, predict_pool
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_npz

LOCATIONS = 200  # of an image, shared by its classes: there may be 100,000 images


def check_locate(trainer: Any) -> None:
    """Check, before the first step, that what is asked for can be done and has an effect.

    Raises:
        UserError: an epoch that never comes, or no oversampling that would use it.
    """
    settings = trainer.settings
    require_epochs(settings, "locate_epochs")
    if settings.locate_epochs and not settings.unlabelled_foreground_oversampling:
        raise UserError(
            "locate_epochs needs unlabelled_foreground_oversampling above 0, got 0. Fix: set both "
            "in plans['semi'], or neither"
        )


def locate_foreground(trainer: Any) -> dict[str, LocationPrior]:
    """Case -> class -> (N, 3) positions relative to the image; also written, for resuming."""
    classes, found = classes_of(trainer), dict[str, LocationPrior]()
    networks, title = {"deployed": trainer.prediction_network()}, "looking for foreground"
    for case, logits, _ in predict_pool(
        trainer, networks, trainer.pool.folder, trainer.unlabelled_cases(), title, mirror=False
    ):
        labels = foreground_labels(trainer.probs(logits["deployed"][None])[0], trainer.exclusive)
        most = max(1, LOCATIONS // len(classes))
        pairs = zip(classes, labels, strict=True)
        some = {key: some_positions(label, most) for key, label in pairs}
        found[case] = {key: positions for key, positions in some.items() if len(positions)}
    found = of_all_ranks(trainer, found)
    epoch, with_any = trainer.current_epoch, sum(map(bool, found.values()))
    trainer.print_to_log_file(
        f"epoch {epoch}: foreground is seen in {with_any} of {len(found)} unlabelled images"
    )
    if trainer.local_rank == 0:
        write(locations_file(trainer, epoch), found, classes)
    return found


def some_positions(label: torch.Tensor, most: int) -> np.ndarray:
    """At most ``most`` voxels of a bool (*spatial), the same each time: (N, 3) in [0, 1).

    Drawn, not every n-th: where n divides the rows, these would lie in a few planes.
    """
    voxels = label.nonzero().numpy()
    count = min(most, len(voxels))
    drawn = np.random.default_rng(0).choice(len(voxels), count, replace=False)
    return ((voxels[np.sort(drawn)] + 0.5) / np.asarray(label.shape)).astype(np.float32)


def locations_file(trainer: Any, epoch: int) -> Path:
    return Path(trainer.output_folder) / f"foreground_epoch_{epoch}.npz"


def classes_of(trainer: Any) -> list[Any]:
    """The foreground classes or regions, as nnU-Net names them where it samples patches."""
    manager = trainer.label_manager
    return list(manager.foreground_regions if manager.has_regions else manager.foreground_labels)


def write(path: Path, found: Mapping[str, LocationPrior], classes: Sequence[Any]) -> None:
    """Store what :func:`locate_foreground` found."""
    nothing, cases = np.zeros((0, 3), np.float32), sorted(found)
    parts = [found[case].get(key, nothing) for case in cases for key in classes]
    write_npz(
        path,
        cases=np.array(cases, dtype=str),
        counts=np.array([len(part) for part in parts], dtype=np.int64),
        positions=np.concatenate([nothing, *parts]),
    )


def read(trainer: Any, epoch: int) -> dict[str, LocationPrior]:
    """What was found at the start of ``epoch``.

    Raises:
        UserError: the file is gone.
    """
    path, classes = locations_file(trainer, epoch), classes_of(trainer)
    if not path.is_file():
        raise UserError(
            f"this training samples unlabelled patches by {path}, which is missing. Fix: put it "
            f"back, or train from the start"
        )
    with np.load(path) as stored:
        cases, ends = stored["cases"].tolist(), np.cumsum(stored["counts"])
        parts = iter(np.split(stored["positions"], ends[:-1]))
    found = {case: {key: next(parts) for key in classes} for case in cases}
    return {case: {k: v for k, v in some.items() if len(v)} for case, some in found.items()}
