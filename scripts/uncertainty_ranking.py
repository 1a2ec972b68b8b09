"""Compare the scores of predicted labels with their true Dice.

    semi_nnunet pseudo-label -i IMAGES -o pool -m MODEL OTHER_MODEL
    semi_nnunet evaluate -i pool/labels -r HIDDEN_LABELS
    python scripts/uncertainty_ranking.py pool/uncertainty.csv pool/labels/metrics.csv

    semi_nnunet predict -i IMAGES -o predictions -m MODEL --uncertainty
    semi_nnunet evaluate -i predictions -r HIDDEN_LABELS
    python scripts/uncertainty_ranking.py predictions/review.csv predictions/metrics.csv

Prints for each score Spearman's rank correlation, 1 if the least uncertain images have the best
labels; and how often an image with a Dice below .7 is less certain than another one (the area
under the ROC curve). Dice is averaged over classes. The hidden labels have no other use.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

WEAK = 0.7  # Dice
PREDICTED = "predicted_dice"  # the only score that is high where a label is good


def read_certainty(scored: list[dict[str, str]], name: str) -> np.ndarray | None:
    """Return a score that is high where a label is good; None for a column of texts."""
    try:
        values = np.array([float(row[name] or 0) for row in scored])
    except ValueError:
        return None
    return values if name == PREDICTED else -values


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, help="uncertainty.csv or review.csv")
    parser.add_argument("metrics", type=Path, help="metrics.csv of semi_nnunet evaluate")
    args = parser.parse_args()
    of_classes = defaultdict(list)
    for row in rows(args.metrics):
        if row["dice"]:
            of_classes[row["case"]].append(float(row["dice"]))
    scored = [row for row in rows(args.scores) if row["case"] in of_classes]
    dice = np.array([fmean(of_classes[row["case"]]) for row in scored])
    weak = dice < WEAK
    for name in (key for key in scored[0] if key != "case"):
        if (certainty := read_certainty(scored, name)) is None:
            continue
        text = f"{name}: {spearmanr(certainty, dice).statistic:.3f} over {len(scored)} images"
        if 0 < weak.sum() < len(weak):
            pairs = mannwhitneyu(certainty[~weak], certainty[weak]).statistic
            share = pairs / weak.sum() / (~weak).sum()
            text += f"; {share:.3f} for the {weak.sum()} with a Dice below {WEAK}"
        print(text)


if __name__ == "__main__":
    main()
