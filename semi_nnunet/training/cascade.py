"""What a cascade needs beyond nnU-Net: the first stage's predictions of all cases.

nnU-Net stores those of the validation cases only. The second stage gets those of the unlabelled
ones, and of pseudo-labelled training cases, as input channels, too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import distributed as dist

from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.data.unlabelled import UnlabelledDataset
from semi_nnunet.training.prediction import predict_pool
from semi_nnunet.util.errors import UserError


def missing_predictions(folder: str | None, cases: Sequence[str]) -> list[str]:
    """Cases without a stored prediction of the previous stage; none without such a stage."""
    if folder is None:
        return []
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return [case for case in cases if f"{case}.b2nd" not in there]


def predicts_pool(fold: int | str) -> bool:
    """Whether a fold's training predicts the unlabelled cases: one does, always the same."""
    return str(fold) in ("0", "all")


@contextmanager
def prepared_stages(trainer: Any) -> Iterator[list[str]]:
    """Inside the block, nnU-Net knows the next stages that are preprocessed alone; yields these.

    It fails over the others, after the training.
    """
    configuration = trainer.configuration_manager.configuration
    base, plans = Path(trainer.preprocessed_dataset_folder_base), trainer.plans_manager
    stages = trainer.configuration_manager.next_stage_names or []
    ready = [s for s in stages if (base / plans.get_configuration(s).data_identifier).is_dir()]
    for stage in sorted(set(stages) - set(ready)):
        trainer.print_to_log_file(
            f"{stage} is not preprocessed: nothing is predicted for it. For the cascade: "
            f"semi_nnunet preprocess, then this training again with --val"
        )
    before = configuration.get("next_stage")
    configuration["next_stage"] = ready or None
    try:
        yield ready
    finally:
        configuration["next_stage"] = before


def require_predictions(folder: str | None, cases: Sequence[str], command: str) -> None:
    """Check that every case has a prediction of the previous stage.

    Raises:
        UserError: naming those that have none, and the command that makes them.
    """
    missing = missing_predictions(folder, cases)
    if missing:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise UserError(
            f"the cascade needs the previous stage's predictions in {folder}, they are missing for "
            f"{len(missing)} cases: {shown}. Fix: {command}"
        )


def never_validated(preprocessed: Path, fold: int | str) -> list[str]:
    """Pseudo-labelled training cases, which are in no validation: nnU-Net never predicts them.

    None of fold "all", which validates its training cases. A case that a person labelled has to be
    predicted by a fold that was not trained on it.
    """
    return [] if str(fold) == "all" else sorted(pseudo_labelled_cases(preprocessed))


def predict_for_next_stages(trainer: Any, stages: Sequence[str]) -> None:
    """Predict the cases that no validation does with the deployed network, for the next stages.

    Args:
        trainer: a :class:`~semi_nnunet.training.trainer.SemiTrainer`.
        stages: configurations that are preprocessed.
    """
    base = Path(trainer.preprocessed_dataset_folder_base)
    predict_cases_of(base.joinpath, trainer, stages, never_validated(base, trainer.fold))
    if trainer.uses_unlabelled:
        unlabelled = partial(unlabelled_folder, base)
        pool = trainer.pool.all(trainer.labelled_identifiers())  # all folds of the next stage's
        predict_cases_of(unlabelled, trainer, stages, pool)
    if trainer.is_ddp:
        dist.barrier()


def predict_cases_of(
    folder_of: Callable[[str], Path], trainer: Any, stages: Sequence[str], cases: Sequence[str]
) -> None:
    """Predict ``cases`` and store their segmentations; those that no stage has are left out.

    Args:
        folder_of: data identifier -> where it has the cases.
        trainer, stages: see :func:`predict_for_next_stages`.
        cases: labelled or unlabelled ones of the trainer's own.
    """
    if not cases:
        return
    plans = trainer.plans_manager
    folders = {stage: folder_of(plans.get_configuration(stage).data_identifier) for stage in stages}
    wanted = {
        case: [stage for stage in stages if (folders[stage] / f"{case}.b2nd").is_file()]
        for case in cases
    }
    absent = [case for case, has in wanted.items() if not has]
    if absent:
        trainer.print_to_log_file(
            f"{len(absent)} cases are not preprocessed for {', '.join(stages)}: they are not "
            f"predicted. Fix: semi_nnunet preprocess, then this training again with --val"
        )
    own = folder_of(trainer.configuration_manager.data_identifier)
    networks = {"deployed": trainer.prediction_network()}
    here = [case for case, has in wanted.items() if has]
    title = "cases for the next stage"
    for case, logits, properties in predict_pool(trainer, networks, own, here, title, mirror=True):
        for stage in wanted[case]:
            store_for(trainer, stage, folders[stage], case, logits["deployed"], properties)


def store_for(
    trainer: Any,
    stage: str,
    folder: Path,
    case: str,
    logits: torch.Tensor,
    properties: dict[str, Any],
) -> None:
    """Resample a prediction to the images of ``stage`` and store it, written aside and renamed."""
    target = UnlabelledDataset(folder, [case], {}).load_case(case)[0]
    out = Path(trainer.output_folder_base) / "predicted_next_stage" / stage
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as aside:  # folds may meet here
        resample_and_save(
            logits, list(target.shape[1:]), str(Path(aside) / case), trainer.plans_manager,
            trainer.configuration_manager, properties, trainer.dataset_json,
            torch.get_num_threads(), nnUNetDatasetBlosc2,
        )  # fmt: skip
        (Path(aside) / f"{case}.b2nd").replace(out / f"{case}.b2nd")
