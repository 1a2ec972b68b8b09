"""``semi_nnunet pseudo-label``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from semi_nnunet.verbs.options import (
    JOBS,
    MORE,
    Images,
    Launcher,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    Models,
    ModelTrainer,
    OutputFolder,
    Views,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.pseudo_labels.label import LabelledPool

logger = logging.getLogger(__name__)


def pseudo_label(
    images: Images,
    out: OutputFolder,
    models: Models = (),
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    views: Views = (),
    confidence: Annotated[float, option()] = 0.0,
    npz: Annotated[bool, option("--npz", "--save_probabilities", group=MORE)] = False,
    partial_labels: Annotated[Path | None, option(group=MORE)] = None,
    shards: Annotated[int | None, option(group=JOBS)] = None,
    launcher: Launcher | None = None,
    worker: Annotated[bool, Parameter(show=False, negative="")] = False,
) -> LabelledPool | None:
    """Label images with trained models: a pool of any size, on one machine or a cluster.

        semi_nnunet pseudo-label -i images -o labelled -m Dataset042_Pancreas/MODEL --jobs 2
        semi_nnunet pseudo-label -i images -o labelled -m MODEL OTHER --views flips rot90 gamma
        semi_nnunet pseudo-label -i images -o labelled -d 42 -c 3d_fullres
        semi_nnunet pseudo-label ... --launcher slurm --shards 100 --sbatch='--gres=gpu:1'
        semi_nnunet pseudo-label ... --launcher ray --shards 100

    A MODEL is a folder TRAINER__PLANS__CONFIGURATION, any path or below nnUNet_results, of ours or
    nnU-Net's, or a fold in it. The second stage of a cascade sees the labels of its first stage,
    which is looked for next to it. Folds and views are averaged as logits, models as probabilities,
    as in nnU-Net: without --views the labels are those of nnUNetv2_predict --disable_tta, with
    "flips" those of its default. Each shard of the pool is a process. Repeat the command to
    continue: a killed process loses its current case only. A bad image is skipped and named.
    uncertainty.csv lists the uncertainty of each image, the most certain first.

    Args:
        images: Folder of files CASE_0000.ending.
        out: Folder for labels/ and the lists.
        models: Folders of trained models, or folds in them; or select one by -d, -c, -tr, -p.
        dataset: Without -m: number or name of the data set.
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds of the model whose logits are averaged (default: every finished fold).
        views: Changed views of each image whose predictions are averaged.
        confidence: Voxels whose label is less probable get nnU-Net's ignore label (default: none).
        npz: Keep the probabilities.
        partial_labels: Folder of labels of some of the images, which annotate some classes, as
            dataset.json in it, next to it or of the model says: these classes stay, the models
            label the rest.
        shards: Number of shards of the pool (default: --jobs).
        launcher: Where the shards are labelled; None: on this machine.
        worker: This process labels a shard; set by the launcher.

    Returns:
        The labelled cases; None if the shards were handed to a cluster.

    Raises:
        UnfinishedError: shards failed; the reasons were printed.
        UserError: a model or image is missing, ``out`` was begun with other ones, or nothing says
            which classes the labels to complete annotate.

    Example:
        >>> pseudo_label("imagesUn", "labelled", ["42/SemiMeanTeacherTrainer__short__2d"]).cases
        ('phantom_0003', 'phantom_0004')
    """
    from semi_nnunet.pseudo_labels import label
    from semi_nnunet.util.names import require_positive
    from semi_nnunet.workflows.selection import select_models

    require_positive({"--shards": shards})
    models = select_models(models, dataset, configuration, trainer, plans, folds)
    request = label.make_labelling_request(
        images, out, models, views, confidence, npz, partial_labels
    )
    jobs = (launcher or Launcher()).for_jobs()
    if worker and jobs.only is not None and shards is not None:
        label.label_shard(request, jobs.only, shards, jobs.device)
        return None
    return label.label_pool(request, jobs, shards)


def has_failed(result: LabelledPool | None) -> bool:
    """Return whether no image could be labelled."""
    return result is not None and not result.cases
