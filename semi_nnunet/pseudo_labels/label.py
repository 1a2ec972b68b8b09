"""Label a pool of images with trained models: what is left, in shards, where a launcher says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from semi_nnunet.deploy.trained import require_readable
from semi_nnunet.pseudo_labels.pool import PoolShard, Request, run_shard, shards_left, write_table
from semi_nnunet.pseudo_labels.predictor import Labeller
from semi_nnunet.runs.launching import Launcher, Work, find_resources, finished
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import require_positive
from semi_nnunet.util.progress import with_progress
from semi_nnunet.util.shards import remove_unfinished


@dataclass(frozen=True)
class Labelled:
    """A pool that was labelled.

    Args:
        folder: of the segmentations.
        table: how unsure the models are of each image, the most certain first.
        cases: that are labelled.
        set_aside: case -> why it could not be labelled.
    """

    folder: Path
    table: Path
    cases: tuple[str, ...]
    set_aside: dict[str, str]


def pseudo_label(
    images: str | Path,
    out: str | Path,
    models: Sequence[str],
    *,
    views: Sequence[str] = (),
    confidence: float = 0.0,
    npz: bool = False,
    complete: str | Path | None = None,
    shards: int | None = None,
    launcher: Launcher | None = None,
) -> Labelled | None:
    """Label images that nobody labelled, with trained models; what is done is kept.

    Args:
        images: folder of files CASE_0000.ending, with the channels that the models want.
        out: folder for labels/ and the lists.
        models: folders TRAINER__PLANS__CONFIGURATION, or folds in them, as they are or below
            nnUNet_results; their probabilities are averaged.
        views: test-time views to average, see :mod:`~.test_time_augmentation`.
        confidence: a voxel whose label is less probable gets nnU-Net's ignore label, in [0, 1).
        npz: keep the probabilities.
        complete: folder of labels of some of the images; classes that the models' dataset.json says
            they annotate stay as they are, and the models label the others.
        shards: into which the pool is cut; None: as many as there are jobs at a time.
        launcher: where the shards are labelled; None: on this machine.

    Returns:
        What was labelled; None where the shards were handed to a cluster.

    Raises:
        UnfinishedError: shards failed; which, and why, was printed.
        UserError: a model or image is missing, ``out`` was begun with other ones, or nothing is
            told of the labels to complete.
    """
    require_positive({"--shards": shards})
    request = request_of(images, out, models, views, confidence, npz, complete)
    return label_pool(request, launcher or Launcher(), shards)


def request_of(
    images: str | Path,
    out: str | Path,
    models: Sequence[str],
    views: Sequence[str] = (),
    confidence: float = 0.0,
    npz: bool = False,
    complete: str | Path | None = None,
) -> Request:
    """Make the request, the same wherever a process works; see :func:`pseudo_label`.

    Raises:
        UserError: the confidence is no probability.
    """
    require_confidence(confidence)
    names = tuple(os.path.abspath(name) if os.path.isdir(name) else name for name in models)
    known = None if complete is None else Path(complete).absolute()
    return Request(
        Path(images).absolute(), Path(out).absolute(), names, tuple(views), confidence, npz, known
    )


def require_confidence(confidence: float) -> None:
    """Check a probability.

    Raises:
        UserError: it is none.
    """
    if not 0 <= confidence < 1:
        raise UserError(
            f"--confidence must be a probability from 0 to below 1, got {confidence:g}",
            fix="correct it",
        )


def label_pool(request: Request, launcher: Launcher, count: int | None = None) -> Labelled | None:
    """Label what is left of a pool.

    Args:
        request: what is asked for.
        launcher: of the shards.
        count: how many shards; None: as many as there are jobs at a time.

    Returns:
        What is labelled; None where it was handed to a cluster.

    Raises:
        UnfinishedError: shards failed.
        UserError: a model or image is missing, or the folder was begun with other ones.
    """
    if count is None:
        here = launcher.launcher == "local"
        count = find_resources(launcher.device, launcher.jobs).jobs if here else launcher.jobs or 1
    shards, left = [PoolShard(request, number, count) for number in range(count)], list[PoolShard]()
    require_readable(request.trained)
    if request.completion is not None and request.completion.labels == request.labels:
        raise UserError(
            f"the completed labels would lie on those that they complete, {request.labels}",
            fix="another -o",
        )
    request.begin()
    if launcher.only is None:
        left = shards_left(request, count)
        print(f"{len(request.cases)} cases, {len(left)} shards to do", flush=True)
        remove_unfinished(request.finished_lists)
    words = ["pseudo-label", *shards[0].arguments()]
    work = Work(words, shards, [shard.number for shard in left], request.finished_lists)
    if not finished(launcher, work):
        return None
    state = request.state(request.cases)
    table = write_table(request, state.done)
    print(f"labelled {len(state.done)} cases: {request.labels}; {table}")
    for case, problem in state.bad.items():
        print(f"set aside: {case}: {problem}")
    return Labelled(request.labels, table, tuple(state.done), dict(state.bad))


def label_shard(request: Request, number: int, shards: int, device: str | None) -> None:
    """The work of one process.

    Args:
        request: what is asked for.
        number: of the shard, from 0.
        shards: how many there are.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.

    Raises:
        UserError: a model has changed since the labelling began.
    """
    request.begin()
    shard = PoolShard(request, number, shards)
    left = shard.left()
    if not left:
        return
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    label = Labeller(request.trained, request.views, torch.device(chosen))
    for _ in with_progress(run_shard(shard, label, left), len(left)):
        pass
