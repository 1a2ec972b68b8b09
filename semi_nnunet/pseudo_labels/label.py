"""Label a pool of images with trained models, in shards on any launcher."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from semi_nnunet.core.devices import choose_device
from semi_nnunet.deploy.loading import load_model
from semi_nnunet.deploy.trained import require_readable
from semi_nnunet.pseudo_labels.pool import (
    LabellingRequest,
    run_shard,
    write_uncertainty_table,
)
from semi_nnunet.pseudo_labels.predictor import Labeller
from semi_nnunet.raw.description import list_cases, warn_of_misnamed_images
from semi_nnunet.runs.launching import JobLauncher, JobWork, find_resources, run_work
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.util.progress import with_progress
from semi_nnunet.util.shards import Shard, find_unfinished_shards, remove_unfinished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledPool:
    """The labels of a pool.

    Args:
        folder: of the segmentations.
        table: uncertainty of each image, the most certain first.
        cases: that are labelled.
        skipped: case -> why it could not be labelled.
    """

    folder: Path
    table: Path
    cases: tuple[str, ...]
    skipped: dict[str, str]


def make_labelling_request(
    images: str | Path,
    out: str | Path,
    models: Sequence[str],
    views: Sequence[str] = (),
    confidence: float = 0.0,
    npz: bool = False,
    complete: str | Path | None = None,
) -> LabellingRequest:
    """Make the request with absolute paths, equal in all processes.

    :func:`semi_nnunet.pseudo_label` documents the arguments.

    Raises:
        UserError: the confidence is not a probability.
    """
    require_confidence(confidence)
    names = tuple(os.path.abspath(name) if os.path.isdir(name) else name for name in models)
    partial_labels = None if complete is None else Path(complete).absolute()
    return LabellingRequest(
        Path(images).absolute(), Path(out).absolute(), names, tuple(views), confidence, npz,
        partial_labels,
    )  # fmt: skip


def require_confidence(confidence: float) -> None:
    """Check that ``confidence`` is a probability below 1.

    >>> require_confidence(0.8)

    Raises:
        UserError: it is not.
    """
    if not 0 <= confidence < 1:
        raise UserError(
            f"--confidence must be a probability from 0 to below 1, got {confidence:g}",
            fix="correct it",
        )


def label_pool(
    request: LabellingRequest, launcher: JobLauncher, count: int | None = None
) -> LabelledPool | None:
    """Label the unfinished cases of a pool.

    Args:
        request: images, models and views.
        launcher: of the shards.
        count: number of shards; None: the number of jobs at a time.

    Returns:
        The labels; None if the shards were handed to a cluster.

    Raises:
        UnfinishedError: shards failed.
        UserError: a model or image is missing, the folder was begun with others, or somebody
            edited labels in it.
    """
    if count is None:
        resources = find_resources(launcher.device, launcher.jobs) if launcher.is_local else None
        count = resources.jobs if resources else launcher.jobs or 1
    shards = [Shard(request, number, count) for number in range(count)]
    unfinished: list[int] = []
    require_readable(request.trained)
    for model in request.trained:
        load_model(model)  # checks that its network can be built
    if request.completion is not None and request.completion.labels == request.labels:
        raise UserError(
            f"the completed labels would replace the annotations in {request.labels}",
            fix="another -o",
        )
    request.begin()
    request.require_no_edited_label()
    warn_of_misnamed_images(request.images, request.cases, request.file_ending)
    if launcher.only is None:
        unfinished = find_unfinished_shards(request, count)
        logger.info(
            f"{format_count(request.cases, 'case')}, {format_count(unfinished, 'shard')} to do"
        )
        remove_unfinished(request.shards)
    command = request.command(count)
    if not run_work(launcher, JobWork(command, shards, unfinished, request.shards)):
        return None
    state = request.state(request.cases)
    table = write_uncertainty_table(request, state.done)
    logger.info(f"labelled {format_count(state.done, 'case')}: {request.labels}; {table}")
    for case, problem in state.bad.items():
        logger.info(f"skipped: {case}: {problem}")
    if others := sorted({*list_cases(request.labels, request.file_ending)} - {*state.done}):
        logger.warning(
            f"WARNING: {request.labels} still holds labels of images that are gone or cannot be "
            f"read: {list_first(others)}. Fix: delete them"
        )
    return LabelledPool(request.labels, table, tuple(state.done), dict(state.bad))


def label_shard(request: LabellingRequest, number: int, shards: int, device: str | None) -> None:
    """Label the unfinished cases of one shard in this process.

    Args:
        request: images, models and views.
        number: of the shard, from 0.
        shards: number of shards.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.

    Raises:
        UserError: a model has changed since the labelling began.
    """
    request.begin()
    shard = Shard(request, number, shards)
    cases = shard.find_unfinished()
    if not cases:
        return
    labeller = Labeller(request.trained, request.views, torch.device(choose_device(device)))
    for _ in with_progress(run_shard(shard, labeller, cases), len(cases)):
        pass
