"""What a cascade needs beyond nnU-Net: the first stage's predictions of the unlabelled cases.

nnU-Net stores those of the validation cases only; the second stage gets both as input channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import distributed as dist

from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.unlabelled import UnlabelledDataset
from semi_nnunet.errors import UserError
from semi_nnunet.pool import predict_pool


def missing_predictions(folder: str | None, cases: Sequence[str]) -> list[str]:
    """Cases without a stored prediction of the previous stage; none without such a stage."""
    if folder is None:
        return []
    return [case for case in cases if not (Path(folder) / f"{case}.b2nd").is_file()]


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


def predict_for_next_stages(trainer: Any, cases: Sequence[str]) -> None:
    """Predict ``cases`` with the deployed network and store the segmentations for every next stage.

    Args:
        trainer: a :class:`~semi_nnunet.trainer.SemiTrainer`.
        cases: unlabelled cases of its configuration.
    """
    title = "unlabelled cases for the next stage"
    networks = {"deployed": trainer.prediction_network()}
    for case, logits, properties in predict_pool(trainer, networks, cases, title, mirror=True):
        for name in trainer.configuration_manager.next_stage_names:
            store_for(trainer, name, case, logits["deployed"], properties)
    if trainer.is_ddp:
        dist.barrier()


def store_for(
    trainer: Any, stage: str, case: str, logits: torch.Tensor, properties: dict[str, Any]
) -> None:
    """Resample a prediction to the images of ``stage`` and store it, written aside and renamed."""
    plans = trainer.plans_manager
    identifier = plans.get_configuration(stage).data_identifier
    folder = unlabelled_folder(trainer.preprocessed_dataset_folder_base, identifier)
    if not (folder / f"{case}.b2nd").is_file():
        trainer.print_to_log_file(
            f"{case} is not preprocessed for {stage}: its prediction is not stored. "
            f"Fix: semi_nnunet preprocess, then this training again with --val"
        )
        return
    target = UnlabelledDataset(folder, [case], {}).load_case(case)[0]
    out = Path(trainer.output_folder_base) / "predicted_next_stage" / stage
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as aside:  # folds may meet here
        resample_and_save(
            logits, list(target.shape[1:]), str(Path(aside) / case), plans,
            trainer.configuration_manager, properties, trainer.dataset_json,
            torch.get_num_threads(), nnUNetDatasetBlosc2,
        )  # fmt: skip
        (Path(aside) / f"{case}.b2nd").replace(out / f"{case}.b2nd")
