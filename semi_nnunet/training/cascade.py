"""Predict the cases that a cascade's next stage needs and that nnU-Net does not predict.

nnU-Net stores the first stage's predictions of validation cases only. The second stage also needs
those of unlabelled cases, and of pseudo-labelled training cases, as input channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import nn

from semi_nnunet.loading.unlabelled import UnlabelledDataset
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.training.run_log import Say


@dataclass(frozen=True)
class NextStages:
    """The stages of a cascade that follow a training.

    Args:
        predictor: predictor of the training's configuration.
    """

    predictor: CasePredictor
    preprocessed: Path
    results: Path
    say: Say

    @contextmanager
    def only_preprocessed(self) -> Iterator[list[str]]:
        """Hide next stages that are not preprocessed from nnU-Net, whose validation would fail.

        Yields:
            The names of the preprocessed stages.
        """
        manager = self.predictor.configuration
        stages = manager.next_stage_names or []
        ready = [s for s in stages if (self.preprocessed / self._data_identifier(s)).is_dir()]
        for stage in sorted(set(stages) - set(ready)):
            self.say(
                f"{stage} is not preprocessed: nothing is predicted for it. To train the cascade, "
                f"run semi_nnunet preprocess, then this training again with --val"
            )
        next_stage = manager.configuration.get("next_stage")
        manager.configuration["next_stage"] = ready or None
        try:
            yield ready
        finally:
            manager.configuration["next_stage"] = next_stage

    def predict(
        self,
        network: nn.Module,
        get_folder: Callable[[str], Path],
        stages: Sequence[str],
        cases: Sequence[str],
    ) -> None:
        """Predict cases and store their segmentations for the next stages that have them.

        Args:
            network: deployed network.
            get_folder: returns the folder of the cases for a data identifier.
            stages: names of preprocessed stages.
            cases: cases of the training's configuration, labelled or unlabelled.
        """
        if not cases:
            return
        folders = {stage: get_folder(self._data_identifier(stage)) for stage in stages}
        stages_of_case = {
            case: [stage for stage in stages if (folders[stage] / f"{case}.b2nd").is_file()]
            for case in cases
        }
        predicted = [case for case in cases if stages_of_case[case]]
        if len(predicted) < len(cases):
            self.say(
                f"{len(cases) - len(predicted)} cases are not preprocessed for "
                f"{', '.join(stages)}, and are not predicted. Fix: semi_nnunet preprocess, then "
                f"this training again with --val"
            )
        folder = get_folder(self.predictor.configuration.data_identifier)
        for case, logits, properties in self.predictor.predict(
            {"deployed": network}, folder, predicted, "cases for the next stage", mirror=True
        ):
            for stage in stages_of_case[case]:
                self._store(stage, folders[stage], case, logits["deployed"], properties)

    def _data_identifier(self, stage: str) -> str:
        return str(self.predictor.plans.get_configuration(stage).data_identifier)

    def _store(
        self, stage: str, folder: Path, case: str, logits: torch.Tensor, properties: dict[str, Any]
    ) -> None:
        """Resample a prediction to the image of ``stage``, and write it atomically."""
        target = UnlabelledDataset(folder, [case], {}).load_case(case)[0]
        out = self.results / "predicted_next_stage" / stage
        out.mkdir(parents=True, exist_ok=True)
        predictor = self.predictor
        # several folds may write at the same time
        with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as temporary:
            resample_and_save(
                logits, list(target.shape[1:]), str(Path(temporary) / case), predictor.plans,
                predictor.configuration, properties, predictor.dataset_json,
                torch.get_num_threads(), nnUNetDatasetBlosc2,
            )  # fmt: skip
            (Path(temporary) / f"{case}.b2nd").replace(out / f"{case}.b2nd")
