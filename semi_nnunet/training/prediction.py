"""Predict preprocessed cases, to filter unlabelled images and for a cascade's next stage.

nnU-Net stores the first stage's predictions of validation cases only. The second stage also needs
those of unlabelled cases, and of pseudo-labelled training cases, as input channels
(:class:`NextStages`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from tqdm import tqdm

from semi_nnunet.loading.unlabelled import IgnoredVoxels, UnlabelledDataset
from semi_nnunet.networks.average import find_deep_supervision_modules
from semi_nnunet.util.verb_commands import suggest_command

if TYPE_CHECKING:  # these import the trainer, and with it libraries that draw and compile
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from semi_nnunet.training.distributed import Ranks
    from semi_nnunet.training.run_log import Say

CASES_APART = 10  # that one process may predict more than another
Prediction = tuple[str, dict[str, torch.Tensor], dict[str, Any]]


class TrainingNetworks(Protocol):
    """The networks of a :class:`~semi_nnunet.training.companions.CompanionTrainer`."""

    def prediction_network(self) -> nn.Module:
        """Return the network that would be deployed."""

    def deployed_networks(self) -> list[nn.Module]:
        """Return the :meth:`prediction_network`, or the networks that it averages."""

    def validated_networks(self) -> dict[str, nn.Module]:
        """Return the other networks whose validation Dice is logged, by name."""

    def another_network(self, name: str) -> nn.Module:
        """Return a new network of the same plan."""

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Return probabilities of logits (B, C, *spatial)."""

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude each other (softmax); otherwise they are regions (sigmoid)."""


@dataclass(frozen=True)
class CasePredictor:
    """nnU-Net's sliding window over preprocessed cases, shared among the processes of a training.

    Args:
        mirror_axes: axes that may be mirrored, or None.
        previous_stage: folder with the predictions of a cascade's previous stage, or None.
        ranks: processes that share the cases.
        ignored: labelled cases among the unlabelled ones, or None.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    dataset_json: dict[str, Any]
    trainer_name: str
    device: torch.device
    mirror_axes: tuple[int, ...] | None
    previous_stage: str | None
    ranks: Ranks
    ignored: IgnoredVoxels | None = None

    def predict(
        self,
        networks: Mapping[str, nn.Module],
        folder: Path,
        cases: Sequence[str],
        title: str,
        mirror: bool,
    ) -> Iterator[Prediction]:
        """Predict this process's share of the cases.

        Args:
            networks: name -> network; in evaluation mode and without deep supervision meanwhile.
            folder: folder of cases preprocessed for this configuration, labelled or unlabelled.
            title: title of the progress bar.
            mirror: average over mirrored images, as nnU-Net does.

        Yields:
            The case, logits (C, *spatial) of each network on the CPU, and nnU-Net's properties.
        """
        predictors = {
            name: self.nnunet_predictor(network, mirror) for name, network in networks.items()
        }
        dataset = UnlabelledDataset(folder, cases, {}, self.previous_stage, ignored=self.ignored)
        labels = self.plans.get_label_manager(self.dataset_json)
        share = list(cases)[self.ranks.rank :: self.ranks.world_size]
        with ExitStack() as stack:
            for network in networks.values():
                stack.enter_context(ready_to_predict(network))
            for number, case in enumerate(tqdm(share, desc=title, disable=None)):
                # as in nnU-Net: the processes never wait for each other for many cases
                if number % CASES_APART == 0 and number < len(cases) // self.ranks.world_size:
                    self.ranks.barrier()
                image, _, previous, properties = dataset.load_case(case)
                x = torch.from_numpy(append_previous_stage(image[:], previous, labels))
                logits = {
                    name: predictor.predict_sliding_window_return_logits(x).cpu()
                    for name, predictor in predictors.items()
                }
                yield case, logits, properties

    def nnunet_predictor(self, network: nn.Module, mirror: bool) -> nnUNetPredictor:
        """Return nnU-Net's predictor for a network of the plan."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(use_mirroring=mirror, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            network, self.plans, self.configuration, None, self.dataset_json, self.trainer_name,
            self.mirror_axes,
        )  # fmt: skip
        return predictor


def append_previous_stage(image: np.ndarray, previous: Any, label_manager: Any) -> np.ndarray:
    """Return the network's input (C, *spatial).

    Args:
        image: image channels (C, *spatial).
        previous: label map (*spatial) of a cascade's previous stage, appended one-hot; or None.
    """
    if previous is None:
        return image
    onehot = convert_labelmap_to_one_hot(
        previous[:], label_manager.foreground_labels, output_dtype=image.dtype
    )
    return np.vstack((image, onehot))


@contextmanager
def ready_to_predict(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode with a single output inside the block.

    >>> network = nn.Linear(1, 1)
    >>> with ready_to_predict(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    training, switches = network.training, find_deep_supervision_modules(network)
    switch_states = [switch.deep_supervision for switch in switches]
    network.eval()
    for switch in switches:
        switch.deep_supervision = False
    try:
        yield
    finally:
        network.train(training)
        for switch, enabled in zip(switches, switch_states, strict=True):
            switch.deep_supervision = enabled


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
                f"run {self._preprocess([stage])}, then this training again with --val"
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
                f"{', '.join(stages)}, and are not predicted. Fix: {self._preprocess(stages)}, "
                f"then this training again with --val"
            )
        folder = get_folder(self.predictor.configuration.data_identifier)
        for case, logits, properties in self.predictor.predict(
            {"deployed": network}, folder, predicted, "cases for the next stage", mirror=True
        ):
            for stage in stages_of_case[case]:
                self._store(stage, folders[stage], case, logits["deployed"], properties)

    def _preprocess(self, stages: Sequence[str]) -> str:
        """Return the command that preprocesses stages."""
        plans = self.predictor.plans
        return suggest_command(
            "preprocess", dataset=plans.dataset_name, configurations=stages, plans=plans.plans_name
        )

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
