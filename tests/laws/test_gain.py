"""Law k: on a phantom, every trainer that uses unlabelled images has more Dice than the baseline.

Small enough for a test: one organ, 32 x 32 slices, 150 steps of Adam. One labelled case, with which
every method gains 12 points of Dice or more (after 225 steps, two seeds: Mean Teacher 17 and 19,
CPS 17 and 20). With two cases and 200 steps, of which the baseline makes .74, the gain was 3 to 5
points with one seed and -1 to 1 with another; with four cases it was one or two, which another
processor's rounding turned into none. That is why the baseline is asked for .5 only. The demo and
``docs/results`` measure it with the default settings.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.data.prepare import prepare
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.planning.budget import Size, shrink
from tests.conftest import PLANS_NAME, PreparedDataset, located, no_processes, write_plans
from tests.trainers import DEFAULT_MODEL, UNLABELLED_TRAINERS

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
        prepare(str(dataset.number), ["2d"], PLANS_NAME, "ExperimentPlanner", 1, False)
    plans = dataset.plans
    plans["configurations"]["2d"] = shrink(plans["configurations"]["2d"], Size(8, 32 * 32, 8))
    write_plans(dataset, plans)
    return dataset


def dice_on_test_cases(trainer, raw: Path, organ: int = 1) -> float:
    """Mean Dice of the deployed network over the test cases."""
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
    plans = trainer.plans_manager, trainer.configuration_manager
    scores = []
    with trainer.as_network(trainer.prediction_network()):
        trainer.set_deep_supervision_enabled(False)
        predictor.manual_initialization(
            trainer.network, *plans, None, trainer.dataset_json, "test", None
        )
        for image in sorted((raw / "imagesTs").glob("*.nii.gz")):
            label = raw / "labelsTs" / image.name.replace("_0000", "")
            data, reference, _ = preprocessor.run_case(
                [str(image)], str(label), *plans, trainer.dataset_json
            )
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
            predicted, expected = logits.argmax(0).numpy() == organ, reference[0] == organ
            overlap = (predicted & expected).sum()
            scores.append(2 * overlap / (predicted.sum() + expected.sum()))
    return float(np.mean(scores))


@pytest.mark.slow
def test_k_unlabelled_images_raise_the_dice(make_trainer, one_organ):
    dice = {}
    first = ["SemiBaselineTrainer", DEFAULT_MODEL]  # which another one learns from
    for name in dict.fromkeys([*first, *UNLABELLED_TRAINERS]):
        trainer = make_trainer(name, dataset=one_organ, fold="all", start=False, **SETTINGS)
        trainer.disable_checkpointing = name != DEFAULT_MODEL
        trainer.run_training()
        dice[name] = dice_on_test_cases(trainer, one_organ.raw)
    baseline = dice.pop("SemiBaselineTrainer")
    assert baseline > 0.5, "the baseline itself must have learned"
    assert {name: value - baseline > 0.05 for name, value in dice.items()} == dict.fromkeys(
        dice, True
    ), f"baseline {baseline:.3f}, {dice}"


# ---- law l: partial labels help ----


def two_organs(root: Path, number: int, made_of: str) -> PreparedDataset:
    """2 cases with two organs, and 8 of which each annotates one of them, alternately.

    ``made_of`` these is a data set that says so ("partial"), one that does not ("background"), or
    one without them ("dropped").
    """
    dataset = located(root, number, f"Two_{made_of}")
    write_phantom_dataset(dataset.raw, labelled=10, unlabelled=4, test=8, shape=(10, 32, 32))
    entry, description = {}, dataset.raw / "dataset.json"
    for place, path in enumerate(sorted(dataset.raw.glob("labelsT*/*.nii.gz"))):
        image = SimpleITK.ReadImage(str(path))
        label, case = SimpleITK.GetArrayFromImage(image), path.name.removesuffix(".nii.gz")
        label[label == 3] = 0
        if path.parent.name == "labelsTr" and place >= 2:
            own = 1 + place % 2
            label[label != own] = 0
            entry[case] = ["large" if own == 1 else "pair"]
        changed = SimpleITK.GetImageFromArray(label)
        changed.CopyInformation(image)
        SimpleITK.WriteImage(changed, str(path))
        if case in entry and made_of == "dropped":
            path.unlink()
            (dataset.raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    content = json.loads(description.read_text())
    content |= {"labels": {"background": 0, "large": 1, "pair": 2}}
    content |= {"numTraining": 2} if made_of == "dropped" else {}
    content |= {"annotated": entry} if made_of == "partial" else {}
    description.write_text(json.dumps(content))
    with no_processes():
        prepare(str(dataset.number), ["2d"], PLANS_NAME, "ExperimentPlanner", 1, False)
    plans = dataset.plans
    plans["configurations"]["2d"] = shrink(plans["configurations"]["2d"], Size(8, 32 * 32, 8))
    write_plans(dataset, plans)
    return dataset


@pytest.mark.slow
def test_l_partial_labels_raise_the_dice(make_trainer, nnunet_folders):
    """With 300 steps .775, without these cases .684, with what is unknown as background .644."""
    dice = {}
    for number, made_of in enumerate(("partial", "dropped", "background"), start=701):
        dataset = two_organs(nnunet_folders, number, made_of)
        settings = {**SETTINGS, "epochs": 12, "validation_steps_per_epoch": 1}
        name = "SemiBaselineTrainer"
        trainer = make_trainer(name, dataset=dataset, fold="all", start=False, **settings)
        trainer.disable_checkpointing = True
        trainer.run_training()
        each = [dice_on_test_cases(trainer, dataset.raw, organ) for organ in (1, 2)]
        dice[made_of] = float(np.mean(each))
    assert dice["partial"] > dice["dropped"] + 0.03 and dice["partial"] > dice["background"] + 0.03
