"""Law k: on a phantom, every trainer that uses unlabelled images has more Dice than the baseline.

Small enough for a test: one organ, 32 x 32 slices, 150 steps of Adam. One labelled case, with which
every method gains 12 points of Dice or more (after 225 steps, two seeds: Mean Teacher 17 and 19,
CPS 17 and 20). With two cases and 200 steps, of which the baseline makes .74, the gain was 3 to 5
points with one seed and -1 to 1 with another; with four cases it was one or two, which another
processor's rounding removed. That is why the baseline needs only .5. The demo and
``docs/results`` measure it with the default settings.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.planning.budget import NetworkSize, shrink_configuration
from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training
from tests.conftest import PreparedDataset, located, no_processes, write_plans
from tests.trainers import DEFAULT_MODEL, UNLABELLED_TRAINERS

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "partial_labels.py"))

SETTINGS = {
    "epochs": 6,
    "steps_per_epoch": 25,
    "mirror": False,
    "optimizer": "adam",
    "initial_lr": 3e-3,
    "save_every_epochs": 100,
}


@pytest.fixture(scope="module")
def one_organ(nnunet_folders: Path) -> PreparedDataset:
    """1 labelled, 24 unlabelled and 8 test cases of which only the large organ is labelled."""
    dataset = located(nnunet_folders, 700, "OneOrgan")
    write_phantom_dataset(dataset.raw, labelled=1, unlabelled=24, test=8, shape=(10, 32, 32))
    for path in dataset.raw.glob("labelsT*/*.nii.gz"):
        label = SimpleITK.ReadImage(str(path))
        SimpleITK.WriteImage(SimpleITK.Cast(label == 1, SimpleITK.sitkUInt8), str(path))
    description = dataset.raw / "dataset.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "labels": {"background": 0, "large": 1}}))
    with no_processes():
        prepare_for_training(str(dataset.number), PrepareOptions(["2d"]))
    plans = dataset.plans
    plans["configurations"]["2d"] = shrink_configuration(
        plans["configurations"]["2d"], NetworkSize(8, 32 * 32, 8)
    )
    write_plans(dataset, plans)
    return dataset


@pytest.mark.law("k")
@pytest.mark.slow
def test_unlabelled_images_raise_the_dice(make_trainer, one_organ):
    dice = {}
    first = ["SemiBaselineTrainer", DEFAULT_MODEL]  # the teacher of distillation
    for name in dict.fromkeys([*first, *UNLABELLED_TRAINERS]):
        trainer = make_trainer(name, dataset=one_organ, fold="all", start=False, **SETTINGS)
        trainer.disable_checkpointing = name != DEFAULT_MODEL
        trainer.run_training()
        (dice[name],) = SCRIPT["dice_on_test_cases"](trainer, one_organ.raw, 1)
    baseline = dice.pop("SemiBaselineTrainer")
    assert baseline > 0.5, "the baseline itself must have learned"
    assert {name: value - baseline > 0.05 for name, value in dice.items()} == dict.fromkeys(
        dice, True
    ), f"baseline {baseline:.3f}, {dice}"


@pytest.mark.law("m")
@pytest.mark.slow
def test_partial_labels_raise_the_dice(tmp_path, monkeypatch):
    """Two cases with both organs, and eight with one of them."""
    for name in ("raw", "preprocessed", "results"):  # the script sets them for its own process
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    with no_processes():
        results = SCRIPT["measure"](tmp_path, 2, 8, 0, ["SemiBaselineTrainer"])
    dice = {use: float(np.mean(organs)) for (_, use), organs in results.items()}
    assert dice["partial"] > dice["dropped"] + 0.03 and dice["partial"] > dice["background"] + 0.03
