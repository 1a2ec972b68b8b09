"""Correlate the scores of a labelled pool with the true Dice of its images (Spearman).

    semi_nnunet pseudo-label -i IMAGES -o pool -m MODEL OTHER_MODEL
    semi_nnunet evaluate -i pool/labels -r HIDDEN_LABELS
    python scripts/uncertainty_ranking.py pool/uncertainty.csv pool/labels/metrics.csv

Prints a line for each score: 1 if the least uncertain images have the best labels. Dice is averaged
over classes. The hidden labels have no other use.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from scipy.stats import spearmanr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, help="uncertainty.csv of semi_nnunet pseudo-label")
    parser.add_argument("metrics", type=Path, help="metrics.csv of semi_nnunet evaluate")
    args = parser.parse_args()
    of_classes = defaultdict(list)
    for row in rows(args.metrics):
        if row["dice"]:
            of_classes[row["case"]].append(float(row["dice"]))
    scored = [row for row in rows(args.scores) if row["case"] in of_classes]
    dice = [fmean(of_classes[row["case"]]) for row in scored]
    for name in (key for key in scored[0] if key != "case"):
        certainty = [-float(row[name]) for row in scored]
        print(f"{name}: {spearmanr(certainty, dice).statistic:.3f} over {len(scored)} images")


if __name__ == "__main__":
    main()
