"""Measure rules of ``semi_nnunet next`` by rounds of annotation with hidden labels.

    python scripts/annotation_rounds.py -d 502 -c 2d --first-id 700 -o rounds.csv
        [--labelled 4] [--add 4] [--rounds 2] [--seeds 3] [--rules typical random ...]
        [--preprocess OPTION ...] [--set KEY=VALUE ...] [--budget cpu] [--device cpu]

The data set has all labels and test cases. For each seed, a split draws the first labelled cases at
random; these are the same for every rule. Each rule then chooses cases in a data set of its own,
their hidden labels are accepted, and the trainers train on all labelled cases, from the beginning,
with new plans. Models that choose are those of the last trainer after the round before.

Numbers of data sets: FIRST_ID + (number of rules + 1) x seed for the first round, and the following
ones for the rules. The CSV has a row for each seed, rule, round and trainer: mean Dice over test
cases and classes, and the cases that were added. The first round has the rule "first". Run the same
command again to continue: finished steps are kept.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from semi_nnunet.raw.layout import find_raw_dataset, get_preprocessed_dataset
from semi_nnunet.util.files import read_csv, write_csv

RULES = ("random", "random-foreground", "typical", "uncertain")
TRAINERS = ("SemiBaselineTrainer", "SemiUnifiedTrainer")
COLUMNS = ("seed", "rule", "round", "trainer", "labelled", "dice", "test_cases", "added")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="source", required=True, help="data set with all labels")
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument("--first-id", type=int, required=True, help="number of the first new one")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="CSV file")
    parser.add_argument("--work", type=Path, default=None, help="folder (default: next to -o)")
    parser.add_argument("--labelled", type=int, default=4)
    parser.add_argument("--add", type=int, default=4, help="cases in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("-tr", dest="trainers", nargs="+", default=list(TRAINERS))
    parser.add_argument("--preprocess", nargs="*", default=[], help="more options, without --")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="of plan")
    parser.add_argument("--budget", default=None, help="of plan, such as cpu")
    parser.add_argument("--device", default=None)
    args = parser.parse_args()
    args.work = (args.work or args.out.with_suffix("")).absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        first = args.first_id + (len(args.rules) + 1) * seed
        prepare(args, first, seed, "first")
        train(args, first, seed, "first", 0, [])
        for place, rule in enumerate(args.rules, start=1):
            measure_rule(args, first, first + place, seed, rule)


def measure_rule(args: argparse.Namespace, first: int, dataset: int, seed: int, rule: str) -> None:
    """Run all rounds of a rule in a data set of its own, which begins like the first one."""
    prepare(args, dataset, seed, rule)
    chooser = name_model(args, first, 0)
    reviewed = args.work / f"{rule}_{seed}_reviewed"
    for number in range(1, args.rounds + 1):
        cases = choose(args, dataset, seed, rule, number, chooser)
        if not values_file(args, seed, rule, number).is_file():
            reviewed.mkdir(exist_ok=True)
            annotate(dataset, reviewed, cases)
            semi_nnunet("accept", "-d", dataset, "-i", reviewed, "--untouched")
        train(args, dataset, seed, rule, number, cases)
        chooser = name_model(args, dataset, number)


def semi_nnunet(*words: object) -> None:
    """Run a command; end with its exit status if it fails."""
    command = [sys.executable, "-m", "semi_nnunet", *map(str, words)]
    print("$", *command[2:], flush=True)
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


def plans_name(number: int) -> str:
    return f"nnUNetPlans_round{number}"


def name_model(args: argparse.Namespace, dataset: int, number: int) -> str:
    """Return the folder of the model that chooses after a round."""
    name = find_raw_dataset(str(dataset)).name
    return f"{name}/{args.trainers[-1]}__{plans_name(number)}__{args.configuration}/fold_all"


def values_file(args: argparse.Namespace, seed: int, rule: str, number: int) -> Path:
    path: Path = args.work / f"{rule}_{seed}_round{number}.csv"
    return path


def prepare(args: argparse.Namespace, dataset: int, seed: int, rule: str) -> None:
    """Make a data set with hidden labels and preprocess it, unless that is done."""
    done = args.work / f"{rule}_{seed}_prepared"
    if done.is_file():
        return
    semi_nnunet(
        "split", "-d", args.source, "--new-id", dataset, "--labelled", args.labelled,
        "--seed", seed, "--new-name", f"Rounds{seed}{rule.replace('-', '')}",
    )  # fmt: skip
    options = [f"--{word}" for word in args.preprocess]
    semi_nnunet("preprocess", "-d", dataset, "-c", args.configuration, *options)
    done.touch()


def choose(
    args: argparse.Namespace, dataset: int, seed: int, rule: str, number: int, chooser: str
) -> list[str]:
    """Return the cases that a rule chooses in a round, the same ones if it is asked again."""
    out = args.work / f"{rule}_{seed}_choice{number}"
    if not (out / "next.html").is_file():
        models = ["-m", chooser] if rule in ("uncertain", "random-foreground") else []
        device = ["--device", args.device] if models and args.device else []
        semi_nnunet(
            "next", "-d", dataset, "-n", args.add, "--rule", rule, *models, *device,
            "--seed", seed, "-o", out,
        )  # fmt: skip
    return [row["case"] for row in read_csv(out / "next.csv")[1]]


def annotate(dataset: int, reviewed: Path, cases: list[str]) -> None:
    """Copy the hidden labels of cases into the reviewed folder."""
    raw = find_raw_dataset(str(dataset))
    for case in cases:
        (label,) = (raw.parent / f"hidden_labels_{raw.name}").glob(f"{case}.*")
        shutil.copy2(label, reviewed)


def train(
    args: argparse.Namespace, dataset: int, seed: int, rule: str, number: int, added: list[str]
) -> None:
    """Train and measure on the present labels, unless that is done, and write the table."""
    values = values_file(args, seed, rule, number)
    if not values.is_file():
        name = plans_name(number)
        if not (get_preprocessed_dataset(str(dataset)) / f"{name}.json").is_file():
            budget = ["--budget", args.budget] if args.budget else []
            settings = ["--set", f"seed={seed}", *args.settings]
            semi_nnunet("plan", "-d", dataset, "--new-plans", name, *budget, *settings)
        semi_nnunet("preprocess", "-d", dataset, "-c", args.configuration, "-p", name)
        device = ["--device", args.device] if args.device else []
        semi_nnunet(
            "crossval", "-d", dataset, "-c", args.configuration, "-p", name, "-f", "all", *device,
            "-tr", *args.trainers,
        )  # fmt: skip
        semi_nnunet("compare", "-d", dataset, "-p", name, "--write-values", values)
    write_table(args, values, (seed, rule, number), added)


def write_table(
    args: argparse.Namespace, values: Path, key: tuple[int, str, int], added: list[str]
) -> None:
    """Write the rows of a round into the CSV, instead of earlier ones of the same round."""
    dice, cases = defaultdict[str, list[float]](list), set[str]()
    for row in read_csv(values)[1]:
        if row["subset"] == "test" and row["dice"]:
            dice[row["trainer"]].append(float(row["dice"]))
            cases.add(row["case"])
    earlier = read_csv(args.out)[1] if args.out.is_file() else []
    rows: list[list[object]] = [
        [row[column] for column in COLUMNS]
        for row in earlier
        if (row["seed"], row["rule"], row["round"]) != tuple(map(str, key))
    ]
    labelled = args.labelled + args.add * key[2]
    for trainer, numbers in sorted(dice.items()):
        mean = f"{fmean(numbers):.5f}"
        rows.append([*key, trainer, labelled, mean, len(cases), " ".join(added)])
    write_csv(args.out, [COLUMNS, *rows])


if __name__ == "__main__":
    main()
