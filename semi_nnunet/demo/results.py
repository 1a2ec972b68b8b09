"""What the demo found: Dice by organ and case, the table, and the sentence below it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.demo.pictures import signed
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.markdown import table

METHODS = {"baseline": BASELINE, "Mean Teacher": "SemiMeanTeacherTrainer"}
ORGANS = {1: "large", 2: "pair", 3: "small"}
NO_DIFFERENCE = 0.005  # of Dice; less is not worth a word


def collect(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Dice by organ, mean and case of each method, and the gain of the second over the first.

    Args:
        summaries: {method: content of nnU-Net's summary.json}; the baseline first.
    """
    dice: dict[str, dict[str, float]] = {}
    per_case: dict[str, dict[str, float]] = {}
    for method, summary in summaries.items():
        dice[method] = {name: summary["mean"][str(label)]["Dice"] for label, name in ORGANS.items()}
        dice[method]["mean"] = float(np.mean(list(dice[method].values())))
        per_case[method] = {
            case_name(case["reference_file"]): float(
                np.nanmean([organ["Dice"] for organ in case["metrics"].values()])
            )
            for case in summary["metric_per_case"]
        }
    first, second = dice.values()
    gain = {name: second[name] - first[name] for name in first}
    return {"dice": dice, "gain": gain, "dice_per_case": per_case}


def case_name(file: str) -> str:
    return Path(file).name.removesuffix(".nii.gz")


def markdown_table(results: Mapping[str, Any]) -> str:
    """Dice of each organ and method; readable on a terminal, too."""
    methods = list(results["dice"])
    rows = [("Dice on the test cases", *methods, "gain")]
    for name in results["gain"]:
        gain = shown_gain(results["dice"], name)
        organ = name if name == "mean" else f"organ: {name}"
        rows.append((organ, *(f"{results['dice'][m][name]:.3f}" for m in methods), signed(gain)))
    return table(rows, numbers=True)


def shown_gain(dice: Mapping[str, Mapping[str, float]], name: str) -> float:
    """The gain between the numbers as they are printed."""
    first, second = (round(values[name], 3) for values in dice.values())
    return second - first


def conclusion(results: Mapping[str, Any]) -> str:
    """What the table says, whichever way it went."""
    baseline, teacher = (results["dice"][method]["mean"] for method in METHODS)
    gain, count = shown_gain(results["dice"], "mean"), results["cases"]
    cases = results["dice_per_case"]
    better = sum(cases["Mean Teacher"][c] > d for c, d in cases["baseline"].items())
    change = f"from {baseline:.3f} to {teacher:.3f} ({signed(gain)})"
    images = f"{count['unlabelled']} unlabelled images"
    if abs(gain) < NO_DIFFERENCE:
        said = f"{images} made no difference worth the name: the mean Dice went {change}"
    elif gain > 0:
        said = f"{images} raised the mean Dice {change}"
    else:
        said = (
            f"{images} did not help this time: the mean Dice fell {change}. Trainings this short "
            "depend on chance; the gain differs from computer to computer"
        )
    seconds = readable_seconds(results["seconds"]["total"])
    return (
        f"{said}.\nMean Teacher is better on {better} of {count['test']} test cases. "
        f"The demo took {seconds}.\nBoth saw the same {count['labelled']} labelled cases, as "
        "often, with the same network. It is one short training of each, not a benchmark."
    )


def readable_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def chosen_cases(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, case) of the worst, the median and the best gain; each case once."""
    baseline, teacher = (results["dice_per_case"][method] for method in METHODS)
    by_gain = sorted(baseline, key=lambda case: teacher[case] - baseline[case])
    places = {"worst gain": 0, "median gain": len(by_gain) // 2, "best gain": len(by_gain) - 1}
    return list(
        {by_gain[place]: (title, by_gain[place]) for title, place in places.items()}.values()
    )
