"""What to type next: to train, or first to plan for a machine without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semi_nnunet.data.layout import preprocessed_dataset, read_plans


def to_train(dataset: str, plans: str, configuration: str, fold: str = "0") -> list[str]:
    """The commands that train on this machine, one after another.

    Args:
        dataset: number or name.
        plans: identifier of the plans.
        configuration: such as "2d"; it is preprocessed.
        fold: number, or "all".
    """
    option = "" if plans == "nnUNetPlans" else f" -p {plans}"
    train = f"nnUNetv2_train {dataset} {configuration} {fold} -tr SemiMeanTeacherTrainer"
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    planned = "semi_planned" in read_plans(preprocessed_dataset(dataset), plans)
    if has_gpu or planned:
        other = " -device mps" if has_gpu else " -device cpu"
        return [f"{train}{option}{'' if torch.cuda.is_available() else other}"]
    return [
        f"semi_nnunet plan -d {dataset}{option} --budget cpu",
        f"{train} -p {plans}_cpu -device cpu",
    ]


def to_preprocess(dataset: str, plans: str, configurations: Sequence[str]) -> str:
    """The command that preprocesses configurations of plans."""
    return f"semi_nnunet preprocess -d {dataset} -p {plans} -c {' '.join(configurations)}"
