"""A small results folder of trainings: predictions, tables, histories, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.training.filtering import write_filter_table
from semi_nnunet.training.history import History

NAME = "Dataset007_Seven"
LABELS = {"background": 0, "liver": 1, "tumour": 2}
BASE, OURS, OTHER = "SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiFixMatchTrainer"
SHARPNESS = {BASE: 0.5, OURS: 0.2, OTHER: 0.45}  # share of wrong voxels at borders


class Tree:
    """nnU-Net's folders of data set 7.

    Args:
        root: folder of the folders.
        shape: of the images; two numbers make colour images.
        cases: of each subset.
        name: of the data set.
        labels: its classes.
        called: suffix of each case's name.
    """

    def __init__(
        self,
        root: Path,
        shape: Sequence[int] = (6, 24, 20),
        cases: int = 7,
        name: str = NAME,
        labels: Mapping[str, int] = LABELS,
        called: str = "",
    ):
        self.root, self.flat = root, len(shape) == 2
        self.ending = ".png" if self.flat else ".nii.gz"
        self.raw, self.preprocessed, self.results = (
            root / folder / name for folder in ("raw", "preprocessed", "results")
        )
        self.references: dict[str, np.ndarray] = {}
        for folder in (self.raw, self.preprocessed, self.results):
            folder.mkdir(parents=True)
        channels = {"0": "R", "1": "G", "2": "B"} if self.flat else {"0": "CT"}
        self.write_json(
            self.preprocessed / "dataset.json",
            {"channel_names": channels, "labels": labels, "numTraining": cases,
             "file_ending": self.ending},
        )  # fmt: skip
        (self.raw / "dataset.json").write_text((self.preprocessed / "dataset.json").read_text())
        plan = {"patch_size": [24, 20], "batch_size": 2, "data_identifier": "nnUNetPlans_2d"}
        self.write_json(self.preprocessed / "nnUNetPlans.json", {"configurations": {"2d": plan}})
        rng = np.random.default_rng(7)
        for subset, images, labels in (
            ("test", self.raw / "imagesTs", self.raw / "labelsTs"),
            ("validation", self.raw / "imagesTr", self.preprocessed / "gt_segmentations"),
        ):
            for number in range(cases):
                case = f"{subset}_{number}{called}"
                label = organ(shape, rng)
                self.references[case] = label
                image = 40 * label + 10 * rng.random(shape)
                if self.flat:
                    image = np.stack([image, image + 40, 255 - image], -1)
                self.write(images / f"{case}_0000{self.ending}", image)
                self.write(labels / f"{case}{self.ending}", label)

    def write(self, path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array.astype(np.uint8), isVector=array.shape[-1] == 3)
        if not self.flat:
            image.SetSpacing((0.7, 1.0, 3.0))
        sitk.WriteImage(image, str(path))

    @staticmethod
    def write_json(path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")

    def set_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("raw", "preprocessed", "results"):
            monkeypatch.setenv(f"nnUNet_{name}", str(self.root / name))

    def train(self, trainer: str, seed: int = 0, fold: str = "0", subsets=("test",)) -> Path:
        """Write the files of a training; the error rate depends only on the trainer."""
        plans = f"nnUNetPlans_seed{seed}" if seed else "nnUNetPlans"
        folder = self.results / f"{trainer}__{plans}__2d" / f"fold_{fold}"
        rng = np.random.default_rng([seed, *trainer.encode()])
        for subset in subsets:
            for case, label in self.references.items():
                if case.startswith(subset):
                    predicted = blurred(label, SHARPNESS.get(trainer, 0.4), rng)
                    self.write(folder / subset / f"{case}{self.ending}", predicted)
            references = self.raw / "labelsTs"
            if subset == "validation":
                references = self.preprocessed / "gt_segmentations"
            description = str(self.preprocessed / "dataset.json")
            folders = ["-i", str(folder / subset), "-r", str(references)]
            assert main(["evaluate", *folders, "--dataset-json", description, "-np", "1"]) == 0
        return folder

    def describe(self, folder: Path, unlabelled: bool) -> None:
        """Write history, settings, cost and, if ``unlabelled``, a filtering."""
        rows: list[dict[str, float]] = []
        for epoch in range(10):
            row = {"epoch": epoch, "learning_rate": 0.01 * (1 - epoch / 10), "seconds": 60.0}
            row |= {"loss/supervised": 1 - epoch / 10, "dice/deployed": epoch / 10}
            if unlabelled:
                row |= {"loss/consistency": 0.1, "weight/consistency": epoch, "mask_ratio": 0.8}
                row |= {"foreground/pseudo_label": 0.1, "dice/student": epoch / 11}
            rows.append(row)
        History(rows).write_csv(folder / "semi_history.csv")
        settings: Mapping[str, object] = {
            "seed": {"value": 0, "reason": "the first"},
            "epochs": {"value": 10, "reason": "given in plans['semi'] <b>&"},
        }
        record = {"semi_nnunet": "0.1.0", "torch": "2.0", "settings": settings}
        self.write_json(folder / "semi_settings.json", record)
        run = {"machine": "CPU 3000, 1 thread", "seconds": 1500.0 if unlabelled else 600.0}
        share = {**run, "memory_gib": 1.5, "gpu_memory_gib": None}
        self.write_json(
            folder / "semi_cost.json", {"training": [share], "validation": {**run, "cases": 600}}
        )
        if unlabelled:
            scores = {f"pool_{n}": n / 12 for n in range(12)}
            write_filter_table(
                folder / "filter_epoch_5.csv", scores, [f"pool_{n}" for n in range(8)]
            )


def organ(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return a ball, one side of it of another class."""
    places = np.indices(shape)
    middle = [size / 2 + rng.uniform(-1, 1) for size in shape]
    distance = sum(
        ((axis - m) / (size / 3)) ** 2 for axis, m, size in zip(places, middle, shape, strict=True)
    )
    label = (distance < 1).astype(int)
    return np.where((label > 0) & (places[-1] > middle[-1]), 2, label)


def blurred(label: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Give some voxels the label of a neighbour."""
    shifted = np.roll(label, 2, axis=-1)
    return np.where(rng.random(label.shape) < share, shifted, label)


def whole_tree(root: Path, **more: object) -> Tree:
    """Write baseline and method with two seeds each."""
    tree = Tree(root, **more)
    for trainer in (BASE, OURS):
        for seed in (0, 1):
            tree.describe(tree.train(trainer, seed), unlabelled=trainer == OURS)
    return tree
