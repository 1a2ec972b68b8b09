"""Values of trainers over several folds and seeds, for tests."""

import csv
import math
from pathlib import Path

import numpy as np

from semi_nnunet.evaluation.values import Model, Value

BASE, OURS, OTHER = (Model(name, "2d") for name in ("Base", "Ours", "Other"))
ORIGIN = ("Hearts", "nnUNetPlans")


def values(
    model: Model, gain: float, seeds: int = 2, noise: float = 0.005, folds: int = 1
) -> list[Value]:
    rng = np.random.default_rng(sum(map(ord, model.trainer)))
    return [
        Value(model, str(fold), seed, f"case{fold}{case}", name, 0.7 + 0.01 * case + gain + error)
        for fold in range(folds)
        for seed in range(seeds)
        for case in range(12)
        for name in ("liver", "tumour")
        for error in [noise * rng.normal()]
    ]


def write_table(path: Path, rows: list[Value], metric: str = "dice") -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "class", metric])
        for row in rows:
            writer.writerow([row.case, row.name, "" if math.isnan(row.value) else row.value])
