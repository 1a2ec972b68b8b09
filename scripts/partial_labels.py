"""Measure the gain of partial labels on a phantom, compared with two ways to ignore them.

    python scripts/partial_labels.py --both 2 --one 8 [--seed 0] [-tr TRAINER ...]

Some cases annotate two organs, the others one of them, alternately. Each trainer trains three
times, for 300 steps: with the annotated classes of dataset.json ("partial"), without the partially
labelled cases ("dropped"), and as nnU-Net would, with the other organ as "background". Prints the
Dice of both organs on 8 test cases. A training takes about half a minute of one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.planning.budget import NetworkSize, shrink_configuration
from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.files import read_json, write_json

USES = ("partial", "dropped", "background")
ORGANS = ("large", "pair")
FOLDERS = ("raw", "preprocessed", "results")
PLANS = "nnUNetPlans"
SETTINGS = {
    "epochs": 12, "steps_per_epoch": 25, "validation_steps_per_epoch": 1, "mirror": False,
    "optimizer": "adam", "initial_lr": 3e-3, "save_every_epochs": 100,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--both", type=int, default=2, help="cases that annotate both organs")
    parser.add_argument("--one", type=int, default=8, help="cases that annotate one of them")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("-tr", dest="trainers", nargs="+", default=["SemiBaselineTrainer"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for name in FOLDERS:
            os.environ[f"nnUNet_{name}"] = str(Path(root) / name)
        os.environ.update(nnUNet_n_proc_DA="0", nnUNet_compile="f")
        found = measure(Path(root), args.both, args.one, args.seed, args.trainers)
    for (trainer, use), organs in found.items():
        each = ", ".join(f"{name} {dice:.3f}" for name, dice in zip(ORGANS, organs, strict=True))
        print(f"{trainer} {use}: {each}, mean {np.mean(organs):.3f}")


def measure(
    root: Path, both: int, one: int, seed: int, trainers: Sequence[str]
) -> dict[tuple[str, str], list[float]]:
    """Return (trainer, use of the partial labels) -> Dice of each organ."""
    found = {}
    for number, use in enumerate(USES, start=701):
        name = f"Dataset{number}_{use}"
        write_two_organs(root / "raw" / name, both, one, seed, use)
        prepare_for_training(str(number), PrepareOptions(["2d"], PLANS))
        plans = read_json(root / "preprocessed" / name / f"{PLANS}.json")
        plans["configurations"]["2d"] = shrink_configuration(
            plans["configurations"]["2d"], NetworkSize(8, 32 * 32, 8)
        )
        for trainer in trainers:
            found[trainer, use] = trained_dice(root, name, plans, trainer)
    return found


def write_two_organs(raw: Path, both: int, one: int, seed: int, use: str) -> None:
    """Write a phantom: ``both`` cases annotate two organs, ``one`` cases one of them."""
    write_phantom_dataset(
        raw, labelled=both + one, unlabelled=24, test=8, shape=(10, 32, 32), seed=seed
    )
    entry: dict[str, list[str]] = {}
    for place, path in enumerate(sorted(raw.glob("labelsT*/*.nii.gz"))):
        image, case = sitk.ReadImage(str(path)), path.name.removesuffix(".nii.gz")
        label = sitk.GetArrayFromImage(image)
        label[label > len(ORGANS)] = 0
        if path.parent.name == "labelsTr" and place >= both:
            own = place % 2
            label[label != own + 1] = 0
            entry[case] = [ORGANS[own]]
        changed = sitk.GetImageFromArray(label)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))
        if case in entry and use == "dropped":
            path.unlink()
            (raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    content = read_json(raw / "dataset.json")
    content["labels"] = {"background": 0, **{name: 1 + i for i, name in enumerate(ORGANS)}}
    if use == "dropped":
        content["numTraining"] = both
    if use == "partial":
        content["annotated"] = entry
    write_json(raw / "dataset.json", content)


def trained_dice(root: Path, name: str, plans: dict[str, Any], trainer: str) -> list[float]:
    """Train on all labelled cases; return the mean Dice of each organ over the test cases."""
    description = read_json(root / "preprocessed" / name / "dataset.json")
    plans = {**plans, "semi": {trainer: SETTINGS}}
    fold: Any = "all"
    made = trainer_classes()[trainer](plans, "2d", fold, description, torch.device("cpu"))
    made.disable_checkpointing = True
    made.run_training()
    return dice_on_test_cases(made, root / "raw" / name, len(ORGANS))


def dice_on_test_cases(trainer: SemiTrainer, raw: Path, classes: int) -> list[float]:
    """Return the mean Dice of each class of the deployed network over the test cases."""
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    plans = trainer.plans_manager, trainer.configuration_manager
    preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
    scores = []
    with trainer.as_network(trainer.prediction_network()):
        trainer.set_deep_supervision_enabled(False)
        predictor.manual_initialization(
            trainer.network, *plans, None, trainer.dataset_json, "test", None
        )
        for image in sorted((raw / "imagesTs").glob("*.nii.gz")):
            label = str(raw / "labelsTs" / image.name.replace("_0000", ""))
            data, reference, _ = preprocessor.run_case(
                [str(image)], label, *plans, trainer.dataset_json
            )
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
            found = logits.argmax(0).numpy()
            pairs = [(found == i + 1, reference[0] == i + 1) for i in range(classes)]
            scores.append([2 * (p & r).sum() / max(1, p.sum() + r.sum()) for p, r in pairs])
    return [float(dice) for dice in np.mean(scores, 0)]


if __name__ == "__main__":
    main()
