"""What a cascade needs beyond nnU-Net: the first stage's predictions of all cases.

nnU-Net stores those of the validation cases only. The second stage gets those of the unlabelled
ones, and of pseudo-labelled training cases, as input channels, too.
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

from semi_nnunet.data.unlabelled import UnlabelledDataset
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.training.run_log import Say


@dataclass(frozen=True)
class NextStages:
    """The stages of a cascade that come after a training.

    Args:
        predictor: of the training's configuration.
        preprocessed: folder of the data set.
        results: folder of the trainer with these plans and configuration.
        say: prints a line into the training's log.
    """

    predictor: CasePredictor
    preprocessed: Path
    results: Path
    say: Say

    @contextmanager
    def prepared(self) -> Iterator[list[str]]:
        """Inside the block, nnU-Net knows those next stages alone that are preprocessed.

        It would fail over the others, after the training.
        """
        manager = self.predictor.configuration
        stages = manager.next_stage_names or []
        ready = [s for s in stages if (self.preprocessed / self._data_of(s)).is_dir()]
        for stage in sorted(set(stages) - set(ready)):
            self.say(
                f"{stage} is not preprocessed: nothing is predicted for it. For the cascade: "
                f"semi_nnunet preprocess, then this training again with --val"
            )
        before = manager.configuration.get("next_stage")
        manager.configuration["next_stage"] = ready or None
        try:
            yield ready
        finally:
            manager.configuration["next_stage"] = before

    def predict(
        self,
        network: nn.Module,
        folder_of: Callable[[str], Path],
        stages: Sequence[str],
        cases: Sequence[str],
    ) -> None:
        """Predict ``cases`` and store their segmentations; those that no stage has are left out.

        Args:
            network: the deployed one.
            folder_of: data identifier -> where it has the cases, labelled or unlabelled.
            stages: configurations that are preprocessed.
            cases: of the training's configuration.
        """
        if not cases:
            return
        folders = {stage: folder_of(self._data_of(stage)) for stage in stages}
        wanted = {
            case: [stage for stage in stages if (folders[stage] / f"{case}.b2nd").is_file()]
            for case in cases
        }
        absent = [case for case, has in wanted.items() if not has]
        if absent:
            self.say(
                f"{len(absent)} cases are not preprocessed for {', '.join(stages)}: they are not "
                f"predicted. Fix: semi_nnunet preprocess, then this training again with --val"
            )
        own = folder_of(self.predictor.configuration.data_identifier)
        here = [case for case, has in wanted.items() if has]
        for case, logits, properties in self.predictor.predict(
            {"deployed": network}, own, here, "cases for the next stage", mirror=True
        ):
            for stage in wanted[case]:
                self._store(stage, folders[stage], case, logits["deployed"], properties)

    def _data_of(self, stage: str) -> str:
        """The data identifier of a stage."""
        return str(self.predictor.plans.get_configuration(stage).data_identifier)

    def _store(
        self,
        stage: str,
        folder: Path,
        case: str,
        logits: torch.Tensor,
        properties: dict[str, Any],
    ) -> None:
        """Resample a prediction to the images of ``stage``, write it aside and rename it."""
        target = UnlabelledDataset(folder, [case], {}).load_case(case)[0]
        out = self.results / "predicted_next_stage" / stage
        out.mkdir(parents=True, exist_ok=True)
        predictor = self.predictor
        with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as aside:  # folds may meet
            resample_and_save(
                logits, list(target.shape[1:]), str(Path(aside) / case), predictor.plans,
                predictor.configuration, properties, predictor.dataset_json,
                torch.get_num_threads(), nnUNetDatasetBlosc2,
            )  # fmt: skip
            (Path(aside) / f"{case}.b2nd").replace(out / f"{case}.b2nd")
