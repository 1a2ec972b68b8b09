"""Simulate which model `auto` exports, on resampled cases of every recorded training.

    python scripts/simulate_export.py docs/values/*.csv [--cases 20] [--draws 20] [--shift POINTS]
    python scripts/simulate_export.py docs/values/*equal_time*.csv docs/values/*/*equal_time*.csv

The first line of the output is the prior of all given files; the second command prints that of
`auto`.

Every training of a method is paired with the baseline of the same file, plans and seed. A draw
takes --cases patients with replacement; the mean difference of all patients counts as the true
gain. The prior of a data set comes from the other data sets only. --shift is subtracted from every
difference: it asks how the rules behave where methods gain less than recorded, for example because
the baseline may train as long as the method.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from semi_nnunet.automatic.checked_choice import METRIC, list_patient_gains
from semi_nnunet.automatic.expected_gain import HARM, RISK_LIMIT, ExpectedGain, GainPrior
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation.values import Value, credit_absence, read_values_file

RESAMPLES = 400  # of the interval of the significance rule


@dataclass(frozen=True)
class PairedTraining:
    """A method's training and its baseline's on the same cases.

    Args:
        collection: the images, such as "acdc": priors come from other collections.
        differences: method - baseline of each patient, in Dice.
    """

    collection: str
    differences: np.ndarray


def read_pairs(path: Path) -> list[PairedTraining]:
    """Read all trainings of one file of ``semi_nnunet compare --write-values``."""
    by_subset, _ = read_values_file(path, METRIC)
    trainings = defaultdict[Hashable, list[Value]](list)
    for subset, values in by_subset.items():
        for value in values:
            key = (subset, value.model.configuration, value.fold, value.seed)
            trainings[key].append(value)
    pairs = []
    for values in trainings.values():
        names = {value.model.trainer for value in values}
        for trainer in sorted(names - {BASELINE} if BASELINE in names else ()):
            both = [value for value in values if value.model.trainer in (trainer, BASELINE)]
            if gains := list_patient_gains(credit_absence(both, METRIC), trainer):
                pairs.append(PairedTraining(path.stem.split("_")[0], np.array(gains)))
    return pairs


def is_significant(differences: np.ndarray, rng: np.random.Generator) -> bool:
    """Return whether interval and Wilcoxon's test agree on a gain: the rule of a claim."""
    drawn = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
    low = np.quantile(differences[drawn].mean(1), 0.025)
    return bool(low > 0 and differences.any() and wilcoxon(differences).pvalue < 0.05)


def prior_of(pairs: Sequence[PairedTraining], without: str) -> GainPrior:
    """Return the prior of a collection, from the gains of all others; "": of all."""
    gains = defaultdict(list)
    for pair in pairs:
        if pair.collection != without:
            gains[pair.collection].append(float(pair.differences.mean()))
    return GainPrior.of_gains(list(gains.values()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shift", type=float, default=0.0, metavar="POINTS")
    parser.add_argument("--risk-limit", type=float, default=RISK_LIMIT)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    pairs = [pair for path in args.files for pair in read_pairs(path)]
    pairs = [PairedTraining(p.collection, p.differences - args.shift / 100) for p in pairs]
    priors = {name: prior_of(pairs, name) for name in {pair.collection for pair in pairs}}
    gained = defaultdict(list)
    for pair in pairs:
        gain = float(pair.differences.mean())
        for _ in range(args.draws):
            cases = rng.choice(pair.differences, args.cases)
            expected = ExpectedGain.after(cases.tolist(), priors[pair.collection])
            gained["always the baseline"].append(0.0)
            gained["always the method"].append(gain)
            gained["the method if significant"].append(gain * is_significant(cases, rng))
            is_exported = expected.is_worth_exporting(args.risk_limit)
            gained["the higher expected Dice"].append(gain * is_exported)
            gained["the truly better model"].append(max(0.0, gain))
    prior = prior_of(pairs, "")
    print(f"prior: mean {100 * prior.mean:+.1f} points, spread {100 * prior.spread:.1f}")
    print(f"{len(pairs)} trainings, {args.draws} draws of {args.cases} patients each")
    print("| exported | mean gain over the baseline, points | loss above one point |")
    print("|---|---|---|")
    for rule, gains in gained.items():
        harm = np.mean(np.array(gains) < -HARM)
        print(f"| {rule} | {100 * np.mean(gains):+.2f} | {harm:.1%} |")


if __name__ == "__main__":
    main()
