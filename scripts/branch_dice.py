"""Measure the pseudo labels of A&D's branches on unlabelled images whose labels were hidden.

    python scripts/branch_dice.py -d 604 -p nnUNetPlans_1200 --labels HIDDEN_LABELS [-f all]
        [--every 8]

Reads the final checkpoint of a SemiDiffusionTrainer and predicts every unlabelled image with xi
(the diffusion branch, sampled from noise), with psi (the branch with difficulty weights), with
their mean, which teaches, and with theta, which is deployed. Prints the Dice of each, averaged over
classes and images. The hidden labels have no other use.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from torch import nn

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.raw.layout import get_preprocessed_dataset
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.util.files import read_json
from semi_nnunet.util.seeds import seeded

TRAINER = "SemiDiffusionTrainer"


class Branch(nn.Module):
    """A network whose logits come from probabilities (B, C, *spatial), for nnU-Net's predictor."""

    def __init__(self, probs: Callable[[torch.Tensor], torch.Tensor], exclusive: bool):
        super().__init__()
        self.probs, self.exclusive = probs, exclusive

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probs = self.probs(x).clamp(1e-6, 1 - 1e-6)
        return probs.log() if self.exclusive else probs.logit()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="dataset", required=True, help="number or name")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans")
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument("-f", dest="fold", default="all")
    parser.add_argument("--labels", type=Path, required=True, help="of the unlabelled images")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth image")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    trainer = trained(args)
    dice: dict[str, list[float]] = {}
    folder, cases = trainer.pool.folder, trainer.unlabelled_cases()[:: args.every]
    for case, logits, properties in trainer.predictor.predict(
        branches(trainer), folder, cases, "predict", mirror=False
    ):
        reader = trainer.plans_manager.image_reader_writer_class()
        file = args.labels / f"{case}{trainer.dataset_json['file_ending']}"
        reference = reader.read_seg(str(file))[0][0]
        for name, one in logits.items():
            dice.setdefault(name, []).append(
                mean_dice(labels_of(trainer, one, properties), reference, trainer.label_manager)
            )
    for name, values in dice.items():
        print(f"{name:12s} {statistics.mean(values):.4f}")


def trained(args: argparse.Namespace) -> Any:
    """Load the trainer with the weights of its final checkpoint."""
    folder = get_preprocessed_dataset(args.dataset)
    plans, description = read_plans(folder, args.plans), read_json(folder / "dataset.json")
    fold = args.fold if args.fold == "all" else int(args.fold)
    made = trainer_classes()[TRAINER](
        plans, args.configuration, fold, description, torch.device(args.device)
    )
    made.initialize()
    made.load_checkpoint(str(Path(made.output_folder) / "checkpoint_final.pth"))
    return made


def branches(trainer: Any) -> dict[str, nn.Module]:
    """Return name -> branch."""

    diffusion = trainer.companion("diffusion")

    def xi(x: torch.Tensor) -> torch.Tensor:
        with seeded("xi"):
            return diffusion.xi_probs(trainer.encoder, x)

    def psi(x: torch.Tensor) -> torch.Tensor:
        return diffusion.psi_probs(trainer.encoder, x)

    parts = {
        "xi": xi,
        "psi": psi,
        "mean of both": lambda x: (xi(x) + psi(x)) / 2,
    }
    found = {name: Branch(probs, trainer.exclusive) for name, probs in parts.items()}
    return {**found, "theta": trainer.prediction_network()}


def labels_of(trainer: Any, logits: torch.Tensor, properties: Any) -> np.ndarray:
    """Predict the label map on the grid of the image."""
    found = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, trainer.plans_manager, trainer.configuration_manager, trainer.label_manager,
        properties,
    )  # fmt: skip
    return np.asarray(found)


def mean_dice(found: np.ndarray, reference: np.ndarray, label_manager: Any) -> float:
    """Average Dice over the classes (or regions) that are in either label map."""
    values, of_regions = [], label_manager.has_regions
    for one in label_manager.foreground_regions if of_regions else label_manager.foreground_labels:
        a, b = (region_or_label_to_mask(labels, one) for labels in (found, reference))
        if total := a.sum() + b.sum():
            values.append(float(2 * (a & b).sum() / total))
    return statistics.mean(values)


if __name__ == "__main__":
    main()
